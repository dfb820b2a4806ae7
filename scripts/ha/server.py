#!/usr/bin/env python3
"""A server of the lab, as a program: server.py NAME PORT

Says `NAME CLIENT` with the address that the connection came from (a balancer's, which tells who
passed it on), and then echoes every byte until the client ends.
"""

import asyncio
import sys

CHUNK = 65536


async def echo(reader, writer, name):
    try:
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        # A peer that resets is the matter of a scenario, not of this server.
        pass
    finally:
        writer.close()


async def main(name, port):
    server = await asyncio.start_server(
        lambda reader, writer: echo(reader, writer, name), ["0.0.0.0", "::"], port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
