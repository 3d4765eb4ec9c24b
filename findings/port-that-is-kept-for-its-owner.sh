#!/usr/bin/env bash
# Whether two TCP sockets may share a port is asked at each bind and each listen, by the options as they are then.
#
# Guess:  SO_REUSEADDR and SO_REUSEPORT count when a socket is bound; what is set later changes nothing for that port.
# Seen:   Linux 6.18.44, Python 3.11. A socket that was bound with SO_REUSEADDR beside another, and takes the option off
#         afterwards, keeps everybody else from the port from then on, although it never listens: the other one can't
#         even listen on it. With SO_REUSEPORT set on both, after they were bound, it can. When it takes that off again,
#         a third socket with SO_REUSEADDR is refused, also while the other one is shut down; but one of the same user
#         with SO_REUSEPORT binds and listens beside it, although the one that listens doesn't have the option any more.
# Why it matters: the owner of a port that others can shut down for it (a listening socket is one for all processes that
#         have it) can keep the port for itself, and still have a second program of the same user refused.
set -euo pipefail
uname -r
python3 - <<'PY'
import errno, socket
ADDRESS, PORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT

def made(*options):
    new = socket.socket()
    for option in options:
        new.setsockopt(socket.SOL_SOCKET, option, 1)
    return new

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        assert error.errno == errno.EADDRINUSE, error
        return True
    return False

def third(*options):
    with made(*options) as other:
        return refused(other.bind, address) or refused(other.listen)

listener, guard = made(ADDRESS), made(ADDRESS)
listener.bind(("127.0.0.1", 0))
address = listener.getsockname()
guard.bind(address)
guard.setsockopt(socket.SOL_SOCKET, ADDRESS, 0)
beside = refused(listener.listen)
for each in (guard, listener):
    each.setsockopt(socket.SOL_SOCKET, PORT, 1)
allowed = not refused(listener.listen)
listener.setsockopt(socket.SOL_SOCKET, PORT, 0)
while_open = third(ADDRESS), third(ADDRESS, PORT)
listener.shutdown(socket.SHUT_RDWR)
while_shut = third(ADDRESS)
guard.close()
listener.close()
free = not third(ADDRESS)
print("beside a guard it can't listen:", beside, "; with SO_REUSEPORT set later:", allowed)
print("a third with SO_REUSEADDR, with SO_REUSEPORT too, is refused:", while_open, "; while nobody listens:", while_shut)
assert (beside, allowed, while_open, while_shut, free) == (True, True, (True, False), True, True)
PY
