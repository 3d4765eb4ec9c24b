#!/usr/bin/env bash
# A pipe whose owner was changed can't be opened anew through /proc by its own maker, if that has no CAP_DAC_OVERRIDE.
#
# Guess:  /proc/self/fd/N of a descriptor that is open for reading can be opened for reading again, whoever owns the
#         pipe: we hold it, after all.
# Seen:   Linux 6.18.44, setpriv of util-linux 2.38.1, Python 3.11. It is an open(2) of the inode like any other, and
#         a pipe's mode is 0600: as root with all capabilities it works, without CAP_DAC_OVERRIDE it is EACCES as soon
#         as the pipe belongs to somebody else. fchown(2) after the second open does no harm.
# Why it matters: it is how a process gets a file description of its own (with O_NONBLOCK that nobody else can take
#         away) for a pipe that it shares. A service whose unit bounds root's capabilities must do it first.
# Needs root.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
uname -r
setpriv --version
try() {
    setpriv --bounding-set "$1" python3 - <<'PY'
import os
reader, writer = os.pipe()
path = f"/proc/self/fd/{reader}"
os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
os.fchown(writer, 65534, 65534)
try:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    print("opened")
except PermissionError:
    print("EACCES")
PY
}
all=$(try +all)
without=$(try -dac_override,-dac_read_search)
echo "all capabilities: $all; without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: $without"
[ "$all/$without" = opened/EACCES ]
