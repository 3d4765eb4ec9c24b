#!/usr/bin/env bash
# valgrind --trace-children=yes can't follow a program that runs itself by /proc/self/exe.
#
# Guess:  valgrind shows a program its own file as /proc/self/exe (readlink(2) and open(2) of it are), so an exec of that is
#         followed like any other.
# Seen:   valgrind 3.19.0 (Debian 12), Linux 6.x, x86-64. readlink gives the program, but execve("/proc/self/exe") is the
#         kernel's link: it leads to valgrind's own tool, which valgrind then tries to run in itself. The child dies before
#         its first instruction: mmap(0x58000000) failed in UME. Without valgrind the same program runs.
# Why it matters: a master that starts workers by its own binary (so that they are the same after the file was replaced) has
#         none under callgrind or memcheck. Counted instructions were had with a copy of the binary in which the text
#         /proc/self/exe is a path of the same length.
# Needs cc, apt-get and dpkg-deb.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
chmod 755 "$T"
cd "$T"
apt-get download -qq valgrind=1:3.19.0-1 2>/dev/null || { apt-get update -qq && apt-get download -qq valgrind=1:3.19.0-1; }
dpkg-deb -x valgrind_*.deb root
export VALGRIND_LIB=$T/root/usr/libexec/valgrind
cat >again.c <<'C'
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char link[4096] = "";
    if (readlink("/proc/self/exe", link, sizeof link - 1) < 0) return 1;
    if (argc > 1) { puts("the second run"); return 0; }
    printf("/proc/self/exe is %s\n", link);
    fflush(stdout);
    execv("/proc/self/exe", (char *[]){argv[0], "again", NULL});
    return 1;
}
C
cc -o again again.c
root/usr/bin/valgrind --version
plain=$(./again)
traced=$(root/usr/bin/valgrind -q --tool=none --trace-children=yes ./again 2>&1) && status=0 || status=$?
printf 'plain:\n%s\ntraced (status %s):\n%s\n' "$plain" "$status" "$traced"
grep -q 'second run' <<<"$plain"
grep -q "exe is $T/again" <<<"$traced"
! grep -q 'second run' <<<"$traced"
[ "$status" -ne 0 ]
