"""Both ends of bidirectional gRPC streams of numbered messages, for tests/it/grpc_streams.rs.

serve PORT NAME     answers each message with NAME:MESSAGE, until it is killed
talk PORT CHANNELS  keeps one stream on each channel, a connection of its own, until its input ends;
                    each line on standard output is one event: WORD CHANNEL SERVER MORE
                    begun   the first answer of a call has come
                    lost    the call failed after its first answer; MORE is its status
                    missed  as lost, before any answer
                    whole   the call ended in order; MORE is how many messages went and came back

Messages are plain bytes, so that nothing has to be generated. A number that is out of order, twice
or missing ends the program with an error.
"""

import os
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE, METHOD = "evenkeel.Test", "Echo"
# Numbers that may be on their way, for a stream.
WINDOW = 32
# Between two messages of a stream, so that many streams leave some of the processor to others.
PACE_SECONDS = 0.002


def serve(port, name):
    def echo(numbers, _context):
        for number in numbers:
            yield b"%s:%s" % (name.encode(), number)

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=64), options=[("grpc.so_reuseport", 0)]
    )
    method = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def tell(*words):
    # One write a line: threads share the output.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Call:
    """One stream: numbers from 0, each answered in order by one server."""

    def __init__(self, channel, over):
        self.over = over
        self.places = threading.Semaphore(WINDOW)
        self.sent = self.answered = 0
        self.server = "nobody"
        # While there is no connection, it waits for one instead of failing at once: after one that
        # failed grpcio waits for about a second, in which calls would miss by the hundred.
        begin = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        self.answers = begin(self.numbers(), wait_for_ready=True)

    def numbers(self):
        while not self.over.is_set():
            # A call that has failed frees no more places, and must not hold its thread for ever.
            if self.places.acquire(timeout=0.1):
                self.sent += 1
                yield b"%d" % (self.sent - 1)
                time.sleep(PACE_SECONDS)
            elif self.answers.done():
                return

    def run(self, index):
        """The error that ended it, or nothing where it ended in order."""
        try:
            for answer in self.answers:
                server, number = answer.decode().split(":")
                if self.answered == 0:
                    self.server = server
                    tell("begun", index, server)
                if (server, int(number)) != (self.server, self.answered):
                    raise ValueError(f"{answer} instead of {self.server}:{self.answered}")
                self.answered += 1
                self.places.release()
        except grpc.RpcError as error:
            return error
        if self.answered != self.sent:
            raise ValueError(f"{self.answered} answers to {self.sent} messages")
        return None


def talk(port, channels):
    over = threading.Event()

    def keep(index):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            while not over.is_set():
                call = Call(channel, over)
                error = call.run(index)
                if error is None:
                    tell("whole", index, call.server, call.answered)
                else:
                    word = "lost" if call.answered else "missed"
                    tell(word, index, call.server, error.code().name, error.details())

    with futures.ThreadPoolExecutor(max_workers=channels) as threads:
        kept = [threads.submit(keep, index) for index in range(channels)]
        sys.stdin.read()
        over.set()
        for each in kept:
            each.result()


if __name__ == "__main__":
    mode, port, last = sys.argv[1:]
    serve(port, last) if mode == "serve" else talk(port, int(last))
