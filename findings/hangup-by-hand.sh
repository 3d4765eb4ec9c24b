#!/usr/bin/env bash
# When its terminal goes, an interactive bash sends its jobs a SIGHUP that looks like one by hand.
#
# Guess:  whether a SIGHUP says "the terminal has gone" or "read your configuration" can be told by its si_code: SI_KERNEL
#         (128) for the hangup of a terminal, SI_USER (0) for kill(1).
# Seen:   bash 5.2.15, Linux. That holds for the leader of a terminal's session alone. What a shell has started is no
#         leader: the kernel tells the shell, and the shell passes it on with kill(2), so that a background job gets SI_USER
#         from its own parent. What does tell the two apart is the terminal: /dev/tty can't be opened any more (ENXIO, EIO), while after a SIGHUP by hand it can.
# Why it matters: a service that takes SIGHUP for a reload, started in a terminal that is closed, reloads instead of
#         ending.
# Needs bash and python3, nothing of which is installed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
bash --version | head -1
cat >"$T/job.py" <<'PY'
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
open(sys.argv[1] + ".ready", "w").close()
info = signal.sigwaitinfo({signal.SIGHUP})
try:
    os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    terminal = "there"
except OSError:
    terminal = "gone"
who = "parent" if info.si_pid == os.getppid() or info.si_pid == int(os.environ.get("SHELL_PID", "-1")) else info.si_pid
with open(sys.argv[1], "w") as out:
    out.write(f"{info.si_code} {terminal} {who}")
PY
cat >"$T/try.py" <<'PY'
import os, pty, signal, sys, time
directory = sys.argv[1]

def run(name, argv, typed=None, by_hand=False):
    out = os.path.join(directory, name)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    if typed:
        os.write(terminal, typed.encode())
    deadline = time.time() + 20
    while not os.path.exists(out + ".ready"):
        assert time.time() < deadline, "the job doesn't start"
        time.sleep(0.02)
    if by_hand:
        os.kill(pid, signal.SIGHUP)
    else:
        os.close(terminal)
    while not os.path.exists(out) or os.path.getsize(out) == 0:
        assert time.time() < deadline, "no SIGHUP comes"
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return open(out).read()

job = [sys.executable, os.path.join(directory, "job.py")]
leader = run("leader", job + [os.path.join(directory, "leader")])
hand = run("hand", job + [os.path.join(directory, "hand")], by_hand=True)
path = os.path.join(directory, "shell")
shell = run("shell", ["bash", "--norc", "-i"], f"SHELL_PID=$$ {job[0]} {job[1]} {path} &\n")
print("leader of the session:", leader)
print("by hand:", hand)
print("job of an interactive bash:", shell)
assert leader.startswith("128 gone"), leader
assert hand.startswith("0 there"), hand
assert shell.startswith("0 gone parent"), shell
PY
timeout 90 python3 "$T/try.py" "$T"
