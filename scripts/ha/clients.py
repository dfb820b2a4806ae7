#!/usr/bin/env python3
"""The clients of the lab, as a program: clients.py ADDRESS PORT RATE LONG SOURCES RECORDS

Openers come RATE times a second, each a connection with a few messages and an end in order. LONG
others stay, and exchange a message every 50 ms. Whatever is sent carries its number, must come back
as it was, and behind one greeting `SERVER BALANCER`. Each connection becomes a line of JSON in the
file RECORDS when it is over; times are seconds of the monotonic clock.

Says `going` once the long ones have exchanged. A line on standard input, or its end, means: no
more; the long ones end in order as well, and the program with them.
"""

import asyncio
import ipaddress
import itertools
import json
import re
import socket
import sys
import time

# How long an answer may take until the client gives up: more than two lost SYNs.
PATIENCE_SECONDS = 4.0
OPENER_MESSAGES = 3
OPENER_PAUSE_SECONDS = 0.01
LONG_PAUSE_SECONDS = 0.05
# A message does not fit one read of a careless relay, nor does it load the machine.
PADDING = "x" * 300
GREETING = re.compile(r"^([a-z0-9]+) ([0-9a-f.:]+)\n$")


class Wrong(Exception):
    """Bytes came that were not those."""


class Clients:
    def __init__(self, address, port, sources, records):
        self.address, self.port, self.records = address, port, records
        self.sources = itertools.cycle([None]) if sources == "-" else of_network(sources)
        self.numbers = itertools.count()
        self.stopping = asyncio.Event()

    async def open(self, record):
        source = next(self.sources)
        local = {"local_addr": (source, 0)} if source else {}
        record["source"] = source
        reader, writer = await patiently(asyncio.open_connection(self.address, self.port, **local))
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record["open"] = time.monotonic()
        greeting = (await patiently(reader.readline())).decode(errors="replace")
        if not greeting:
            raise ConnectionError("closed before the greeting")
        if not (said := GREETING.match(greeting)):
            raise Wrong(f"greeting {greeting!r}")
        record["server"], record["via"] = said.groups()
        return reader, writer

    async def exchange(self, reader, writer, record):
        """One message there and back; the longest wait is kept."""
        began = time.monotonic()
        message = f"{record['number']}.{record['messages']} {PADDING}\n".encode()
        writer.write(message)
        answer = await patiently(reader.readline())
        if answer != message:
            if message.startswith(answer):
                raise ConnectionError("closed in the middle")
            raise Wrong(f"{answer[:80]!r} for {message[:20]!r}")
        record["messages"] += 1
        record["last"] = time.monotonic()
        record["wait"] = max(record["wait"], record["last"] - began)

    async def finish(self, reader, writer):
        """Our end, and the server's answer to it."""
        writer.write_eof()
        if rest := await patiently(reader.read()):
            raise Wrong(f"{rest[:80]!r} behind the end")

    async def client(self, kind, work):
        """One connection from its beginning to its record, whatever becomes of it."""
        record = {"kind": kind, "number": next(self.numbers), "begin": time.monotonic(), "messages": 0, "wait": 0.0,
                  "error": None, "wrong": False}
        writer = None
        try:
            reader, writer = await self.open(record)
            await work(reader, writer, record)
            await self.finish(reader, writer)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            record["error"] = str(error) or type(error).__name__
        except Wrong as error:
            record["error"], record["wrong"] = str(error), True
        finally:
            record["end"] = time.monotonic()
            self.records.write(json.dumps(record) + "\n")
            self.records.flush()
            if writer:
                writer.transport.abort()

    async def short(self, reader, writer, record):
        for _ in range(OPENER_MESSAGES):
            await self.exchange(reader, writer, record)
            await asyncio.sleep(OPENER_PAUSE_SECONDS)

    async def long(self, going):
        async def work(reader, writer, record):
            while not self.stopping.is_set():
                await self.exchange(reader, writer, record)
                going.release()
                await asyncio.sleep(LONG_PAUSE_SECONDS)
        await self.client("long", work)

    async def openers(self, rate):
        """At a steady rate, whether or not those before have got anywhere."""
        if rate == 0:
            await self.stopping.wait()
            return
        began, tasks = time.monotonic(), set()
        for turn in itertools.count():
            await asyncio.sleep(max(0, began + turn / rate - time.monotonic()))
            if self.stopping.is_set():
                break
            task = asyncio.create_task(self.client("opener", self.short))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def of_network(network):
    return itertools.cycle([str(host) for host in itertools.islice(ipaddress.ip_network(network).hosts(), 1000)])


async def patiently(waited_for):
    return await asyncio.wait_for(waited_for, PATIENCE_SECONDS)


async def main(address, port, rate, long, sources, records):
    with open(records, "w") as file:
        clients = Clients(address, port, sources, file)
        going = asyncio.Semaphore(0)
        lasting = [asyncio.create_task(clients.long(going)) for _ in range(long)]
        for _ in range(long):
            await patiently(going.acquire())
        opening = asyncio.create_task(clients.openers(rate))
        print("going", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        clients.stopping.set()
        await asyncio.gather(opening, *lasting)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6]))
