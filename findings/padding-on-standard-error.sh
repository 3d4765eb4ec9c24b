#!/usr/bin/env bash
# eprintln!("{:1000}", "") makes a thousand write(2) of one byte each.
#
# Guess:  a padded field is one write, as a string of the same length is.
# Seen:   rustc 1.95.0 on Linux with glibc. Standard error has no buffer, and the padding of a formatted text is written
#         character by character: 1,000 blanks are 1,000 system calls, between which other output can come. The same
#         blanks in a string are one write, and one more for the line's end; `println!` is one in both cases.
# Why it matters: who reads such a pipe sees a thousand pieces; an app that prints some padded table to standard error
#         spends seconds in the kernel (a test of ours took it for a hang).
# Needs rustc and strace.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
rustc --version
cat >"$T/a.rs" <<'RS'
fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("padded") => eprintln!("{:1000}", ""),
        Some("text") => eprintln!("{}", " ".repeat(1000)),
        _ => println!("{:1000}", ""),
    }
}
RS
rustc -O -o "$T/a" "$T/a.rs"
count() { strace -qq -e trace=write -o "$T/calls" "$T/a" "$1" 2>&1 | cat >/dev/null; grep -c '^write([12],' "$T/calls"; }
padded=$(count padded) text=$(count text) buffered=$(count buffered)
echo "write(2) calls: eprintln! padded $padded, eprintln! of a text $text, println! padded $buffered"
[ "$padded" -ge 1000 ] && [ "$text" -le 2 ] && [ "$buffered" -le 2 ]
