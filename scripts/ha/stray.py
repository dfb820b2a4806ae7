#!/usr/bin/env python3
"""A client whose connection nobody knows, as a program: stray.py ADDRESS PORT

Makes a socket that believes to be connected, without a packet (TCP_REPAIR), sends something, and
says after how many seconds it ended and how: `reset`, or what else.
"""

import socket
import sys
import time

TCP_REPAIR = 19
PATIENCE_SECONDS = 3


def main(address, port):
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    client = socket.socket(found[0], socket.SOCK_STREAM)
    client.settimeout(PATIENCE_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.connect(found[4])
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    began = time.monotonic()
    try:
        client.send(b"hello\n")
        how = "ended" if client.recv(100) == b"" else "answered"
    except ConnectionResetError:
        how = "reset"
    except OSError as error:
        how = str(error)
    print(f"{time.monotonic() - began:.3f} {how}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
