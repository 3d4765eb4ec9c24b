#!/usr/bin/env bash
# A Unix SOCK_SEQPACKET socket reports ECONNRESET before the packets that its peer sent; a SOCK_STREAM one behind them.
#
# Guess:  what a peer sent before it closed, or died, is received first, and the reset after it, whatever the type.
# Seen:   Linux 6.18.44. A peer closes with something unread. SOCK_SEQPACKET: recv(2) fails with ECONNRESET once, then
#         the packets come, then the end. SOCK_STREAM: the bytes come, then ECONNRESET once, then the end. A send(2)
#         that comes first takes the reset on SOCK_SEQPACKET, and the packets are still there behind it; the next one
#         fails with EPIPE.
# Why it matters: who takes the first error for the end loses the last words of a process that has died, its
#         acknowledgements for instance.
# Source: __skb_try_recv_datagram looks at sock_error first; unix_stream_read_generic at the queue (net/core/datagram.c,
#         net/unix/af_unix.c).
set -euo pipefail
uname -r
python3 - <<'PY'
import errno, socket

def seen(kind, sends_first):
    ours, peer = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    ours.send(b"unread")
    peer.send(b"one")
    peer.send(b"two")
    peer.close()
    calls = [lambda: ours.send(b"more")] * (2 if sends_first else 0) + [lambda: ours.recv(16)] * 4
    out = []
    for call in calls:
        try:
            out.append(call().decode())
        except OSError as error:
            out.append(errno.errorcode[error.errno])
    return out

packets, stream = socket.SOCK_SEQPACKET, socket.SOCK_STREAM
result = {
    "seqpacket": seen(packets, False),
    "seqpacket, sends first": seen(packets, True),
    "stream": seen(stream, False),
}
for name, calls in result.items():
    print(f"{name}: {calls}")
assert result == {
    "seqpacket": ["ECONNRESET", "one", "two", ""],
    "seqpacket, sends first": ["ECONNRESET", "EPIPE", "one", "two", "", ""],
    "stream": ["onetwo", "ECONNRESET", "", ""],
}, result
PY
