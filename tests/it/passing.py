"""Starts a program with sockets of its own, as systemd does: NAME=KIND:ADDRESS... -- PROGRAM ARGUMENT...

KIND is tcp (HOST:PORT), tcp6 (for both families) or unix (a path, or @ and an abstract name).
"""

import fcntl
import os
import socket
import sys

FIRST = 3
# Out of the way of the numbers that are passed.
HIGH = 100


def opened(kind, address):
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind("\0" + address[1:] if address.startswith("@") else address)
    else:
        host, port = address.rsplit(":", 1)
        family = socket.AF_INET6 if kind == "tcp6" else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == "tcp6":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, int(port)))
    made.listen(64)
    return made


end = sys.argv.index("--")
names, descriptors = [], []
for spec in sys.argv[1:end]:
    name, rest = spec.split("=", 1)
    names.append(name)
    kind, address = rest.split(":", 1)
    descriptors.append(fcntl.fcntl(opened(kind, address), fcntl.F_DUPFD_CLOEXEC, HIGH))
for number, descriptor in enumerate(descriptors, FIRST):
    os.dup2(descriptor, number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(names))
os.environ["LISTEN_FDNAMES"] = ":".join(names)
program = sys.argv[end + 1 :]
os.execv(program[0], program)
