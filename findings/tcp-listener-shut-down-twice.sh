#!/usr/bin/env bash
# A TCP listener that was shut down twice listens again, and every connection that it accepts is dead at birth.
#
# Guess:  shutdown(2) on a listener closes it; a second one fails (ENOTCONN) and so changes nothing; listen(2) makes it
#         as good as new.
# Seen:   Linux 6.18.44. The second shutdown fails and still marks the
#         closed socket in both directions. listen(2) succeeds and leaves the mark, and each accepted connection inherits
#         it: connect(2) succeeds, then both sides read the end at once. SO_ACCEPTCONN says that it listens. After one
#         shutdown there is no mark, and connect(2) with AF_UNSPEC before listen(2) takes it away.
# Why it matters: a listener that several processes share is shut down by each of them when they stop; whoever wants
#         to revive it has to disconnect it first (host/master/src/listeners/health.rs).
# Source: inet_shutdown in net/ipv4/af_inet.c sets sk_shutdown before it looks at the state; tcp_disconnect clears it.
set -euo pipefail
uname -r
python3 - <<'PY'
import ctypes, os, platform, socket, struct
libc = ctypes.CDLL(None, use_errno=True)

def disconnect(s):
    unspecified = struct.pack("@H14x", socket.AF_UNSPEC)
    assert libc.connect(s.fileno(), unspecified, len(unspecified)) == 0, os.strerror(ctypes.get_errno())

def first_bytes(shutdowns, disconnects):
    """What a client of the revived listener reads when its server writes one byte."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    s.listen()
    address = s.getsockname()
    errors = []
    for _ in range(shutdowns):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            errors.append(error.errno)
    if disconnects:
        disconnect(s)
    try:
        s.bind(address)
    except OSError:
        pass
    s.listen()
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    client = socket.create_connection(s.getsockname(), timeout=5)
    server, _ = s.accept()
    try:
        server.send(b"x")
    except BrokenPipeError:
        pass
    return client.recv(1), len(errors)

seen = {case: first_bytes(*case) for case in [(1, False), (2, False), (2, True)]}
for (shutdowns, disconnects), (read, errors) in seen.items():
    print(f"shutdowns={shutdowns} (failed: {errors}) disconnected={disconnects}: a client reads {read!r}")
assert seen == {(1, False): (b"x", 0), (2, False): (b"", 1), (2, True): (b"x", 1)}, seen
print("as before, with Python", platform.python_version())
PY
