#!/usr/bin/env python3
"""Clients that go by a name, as a program: resolving.py NAME PORT RECORDS NAMESERVER...

Asks each name server for the A and AAAA records 20 times a second, and opens connections as three
kinds of clients do, each kind 20 times a second:

    fresh      asks for the name each time, the name servers in turn, and takes the first address
    caching    keeps an answer for its TTL, and takes the first address; it asks the name server that
               answered last, as resolvers do
    trying     as caching, and tries the next address where one does not take it within 250 ms

Each of the latter two kinds is ten clients in turn, whose answers are of different age.

A connection is good when the greeting has come. Each question and each connection becomes a line of
JSON in the file RECORDS; times are seconds of the monotonic clock. Says `going` once the name has
addresses. Ends when its standard input does.
"""

import asyncio
import itertools
import json
import socket
import struct
import sys
import time

A, AAAA = 1, 28
EVERY_SECONDS = 0.05
# Until a resolver asks the next name server, and remembers that one: unbound's first try is as short.
ASKING_SECONDS = 0.4
# RFC 8305: how long a client waits for one address before it tries the next.
NEXT_SECONDS = 0.25
PATIENCE_SECONDS = 4.0
CLIENTS = 10


def question(number, name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def answer(message, asked):
    """Addresses and the TTL in an answer to the question `asked`, whose name comes first in it."""
    number, flags, _, count = struct.unpack("!4H", message[:8])
    if number != struct.unpack("!H", asked[:2])[0] or flags & 0x800F != 0x8000:
        raise OSError(f"no answer: flags {flags:#x}")
    at, addresses, ttl = len(asked), [], 0
    for _ in range(count):
        # The name of each record is a pointer to the question's, which is two bytes.
        kind, _, ttl, length = struct.unpack("!2HIH", message[at + 2:at + 12])
        family = {A: socket.AF_INET, AAAA: socket.AF_INET6}[kind]
        addresses.append(socket.inet_ntop(family, message[at + 12:at + 12 + length]))
        at += 12 + length
    return addresses, ttl


class Kept:
    """The answer that one client keeps; the first for a part of its TTL, so that they are not all of one age."""

    def __init__(self, part):
        self.addresses, self.until, self.part = [], 0.0, part

    async def current(self, resolve):
        if time.monotonic() >= self.until:
            self.addresses, ttl = await resolve()
            self.until = time.monotonic() + ttl * self.part
            self.part = 1
        return self.addresses


class Resolving:
    def __init__(self, name, port, records, servers):
        self.name, self.port, self.records, self.servers = name, port, records, servers
        self.numbers, self.turns = itertools.count(1), itertools.count()
        self.answered_last = servers[0]
        self.kept = {kind: itertools.cycle([Kept((part + 1) / CLIENTS) for part in range(CLIENTS)])
                     for kind in ["caching", "trying"]}

    def note(self, record):
        record["end"] = time.monotonic()
        self.records.write(json.dumps(record) + "\n")
        self.records.flush()

    async def ask(self, server, kind):
        """Addresses and TTL from one name server."""
        asked = question(next(self.numbers) % 65536, self.name, kind)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((server, 53))
            sock.send(asked)
            received = asyncio.get_running_loop().sock_recv(sock, 512)
            return answer(await asyncio.wait_for(received, ASKING_SECONDS), asked)

    async def resolve_as_before(self):
        """The name server that answered last, then the others."""
        return await self.resolve(sorted(self.servers, key=lambda server: server != self.answered_last))

    async def resolve(self, servers):
        for server in servers:
            try:
                found = await self.ask(server, A)
                self.answered_last = server
                return found
            except (OSError, asyncio.TimeoutError):
                continue
        raise OSError("no name server answers")

    async def addresses(self, kind):
        if kind == "fresh":
            turn = next(self.turns) % len(self.servers)
            return (await self.resolve(self.servers[turn:] + self.servers[:turn]))[0]
        return await next(self.kept[kind]).current(self.resolve_as_before)

    async def open(self, record, kind):
        addresses = await self.addresses(kind)
        wanted = addresses if kind == "trying" else addresses[:1]
        for address in wanted:
            record["address"] = address
            patience = PATIENCE_SECONDS if address == wanted[-1] else NEXT_SECONDS
            try:
                return await asyncio.wait_for(self.greeted(address), patience)
            except (OSError, asyncio.TimeoutError) as error:
                record["error"] = str(error) or type(error).__name__
        raise OSError(record["error"])

    async def greeted(self, address):
        reader, writer = await asyncio.open_connection(address, self.port)
        try:
            if not await reader.readline():
                raise OSError("closed before the greeting")
        finally:
            writer.close()

    async def client(self, kind):
        record = {"kind": kind, "begin": time.monotonic(), "error": None}
        try:
            await self.open(record, kind)
            record["error"] = None
        except OSError as error:
            record["error"] = str(error)
        self.note(record)

    async def watch(self, server, kind):
        record = {"kind": "question", "begin": time.monotonic(), "at": f"{server} {kind}", "addresses": None}
        try:
            record["addresses"], record["ttl"] = await self.ask(server, kind)
        except (OSError, asyncio.TimeoutError) as error:
            record["error"] = str(error) or type(error).__name__
        self.note(record)

    def turn(self):
        for server in self.servers:
            yield self.watch(server, A)
            yield self.watch(server, AAAA)
        for kind in ["fresh", "caching", "trying"]:
            yield self.client(kind)


async def every_turn(resolving):
    tasks, began = set(), time.monotonic()
    for turn in itertools.count(1):
        for work in resolving.turn():
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0, began + turn * EVERY_SECONDS - time.monotonic()))


async def main(name, port, records, servers):
    with open(records, "w") as file:
        resolving = Resolving(name, port, file, servers)
        await resolving.resolve(servers)
        turning = asyncio.create_task(every_turn(resolving))
        print("going", flush=True)
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await asyncio.wait([turning, ended], return_when=asyncio.FIRST_COMPLETED)
        if turning.done():
            await turning
        # Those that have not come to an end by now prove nothing.
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
