#!/usr/bin/env bash
# Since Linux 6.16 a Unix socket can refuse descriptors, and then it is their sender who is told.
#
# Guess:  a receiver that wants no SCM_RIGHTS can only leave out the control buffer; the kernel then drops what came, in
#         the receiver.
# Seen:   Linux 6.18.44, Python 3.11. With SO_PASSRIGHTS (83 on x86-64) set to 0 on the receiver, sendmsg(2) of a packet
#         with descriptors fails with EPERM at its sender and nothing is queued; packets without any still pass, and
#         those that were queued before keep theirs. The option is 1 to begin with, and sockets inherit it neither by
#         socketpair(2) nor from the peer. The crate libc 0.2.191 has the name for SPARC alone.
# Why it matters: dropping a descriptor is closing it, and the last close can wait (SO_LINGER, for one). A process that
#         others send to can now leave that to them.
set -euo pipefail
uname -r
python3 - <<'PY'
import array, os, socket
SO_PASSRIGHTS = 83

def rights(descriptor):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]

left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
assert right.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 1
null = os.open("/dev/null", os.O_RDONLY)
left.sendmsg([b"before"], rights(null))
right.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
assert left.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 1
try:
    left.sendmsg([b"refused"], rights(null))
    raise SystemExit("the packet was taken")
except PermissionError as error:
    print("with descriptors:", error)
left.sendmsg([b"plain"])
first, ancillary, _, _ = right.recvmsg(100, socket.CMSG_SPACE(4))
second = right.recv(100)
print("queued before:", first, len(ancillary), "; then:", second)
assert (first, len(ancillary), second) == (b"before", 1, b"plain")
PY
