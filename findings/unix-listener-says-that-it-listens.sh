#!/usr/bin/env bash
# A Unix listener that was shut down says that it listens, and listen(2) again succeeds; nobody can connect ever again.
#
# Guess:  as with TCP, SO_ACCEPTCONN falls to 0 with shutdown(2), and listen(2) revives it.
# Seen:   Linux 6.18.44. SO_ACCEPTCONN stays 1, listen(2) returns 0, and connect(2) is refused before and after it.
#         Only poll(2) tells: POLLRDHUP. shutdown(SHUT_WR) alone does no harm and isn't told by POLLRDHUP.
# Why it matters: whoever watches a Unix listener by SO_ACCEPTCONN sees nothing, and has to bind another socket.
# Source: unix_shutdown sets sk_shutdown and leaves TCP_LISTEN; unix_stream_connect refuses on RCV_SHUTDOWN
#         (net/unix/af_unix.c).
set -euo pipefail
uname -r
python3 - <<'PY'
import os, select, socket, tempfile

POLLRDHUP = 0x2000

def look(s, path):
    poll = select.poll()
    poll.register(s, POLLRDHUP)
    told = any(events & POLLRDHUP for _, events in poll.poll(0))
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(path)
        connects = True
    except ConnectionRefusedError:
        connects = False
    return s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), told, connects

with tempfile.TemporaryDirectory() as directory:
    seen = {}
    for name, how in [("SHUT_WR", socket.SHUT_WR), ("SHUT_RD", socket.SHUT_RD), ("SHUT_RDWR", socket.SHUT_RDWR)]:
        path = os.path.join(directory, name)
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen()
        s.shutdown(how)
        before = look(s, path)
        s.listen()
        seen[name] = before, look(s, path)
    for name, states in seen.items():
        for when, (listens, told, connects) in zip(("", "and listen(2)"), states):
            print(f"{name} {when}: SO_ACCEPTCONN={listens} POLLRDHUP={told} connects={connects}")
    dead = (1, True, False), (1, True, False)
    alive = (1, False, True), (1, False, True)
    assert seen == {"SHUT_WR": alive, "SHUT_RD": dead, "SHUT_RDWR": dead}, seen
PY
