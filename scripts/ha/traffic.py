"""Traffic of a scenario: starts clients.py in a host, and reads what became of each connection.

    traffic = lab.traffic("10.0.0.10")         # openers 50 times a second, and 20 long connections
    ...something happens...
    result = traffic.stop()                    # ends the long ones in order
    result.failed, result.gap(since), result.cut, result.wrong

Times are those of `lab.now()`.
"""

import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ha.scenario import Failed

CLIENTS = Path(__file__).resolve().parent / "clients.py"
# A SYN that was lost is sent again after a second. Anything close to that was no success in time.
PROMPT_SECONDS = 0.5
_numbers = itertools.count(1)


class Traffic:
    """Clients that are going when the constructor returns.

    rate: openers a second. long: connections that stay. sources: a network of further source
    addresses (lab.SOURCES_V4, SOURCES_V6), of which the first 1,000 take turns.
    """

    def __init__(self, lab, host, address, *, port=80, rate=50, long=20, sources="-"):
        number = next(_numbers)
        self._records = lab.logs / f"connections-{number}.json"
        self._clients = host.start(f"clients-{number}", sys.executable, CLIENTS, address, port, rate, long, sources,
                                   self._records)
        self._began = lab.now()
        lab.until(f"clients of {address} are going", self._going, seconds=20)

    def _going(self):
        if not self._clients.running():
            raise Failed(f"clients ended: {self._clients.said()[-500:]}")
        return "going" in self._clients.said()

    def so_far(self):
        """A Result of the connections that are over by now."""
        return Result([json.loads(line) for line in self._records.read_text().splitlines(keepends=True)
                       if line.endswith("\n")])

    def stop(self):
        """Ends all connections in order, and says what became of them."""
        self._clients.process.stdin.close()
        self._clients.process.wait(20)
        if self._clients.process.returncode:
            raise Failed(f"clients failed: {self._clients.said()[-2000:]}")
        return self.so_far()


@dataclass
class Result:
    """Each connection as a dict: kind (opener, long), begin, open, last, end, source, server, via
    (the balancer's address), messages, wait (the longest for an answer), error, wrong."""
    connections: list

    @property
    def openers(self):
        """New connections, in the order in which they began."""
        return sorted((c for c in self.connections if c["kind"] == "opener"), key=lambda c: c["begin"])

    @property
    def long(self):
        return [c for c in self.connections if c["kind"] == "long"]

    @property
    def failed(self):
        """New connections that did not come to an end in order."""
        return [c for c in self.openers if c["error"]]

    @property
    def cut(self):
        """Long connections that did not."""
        return [c for c in self.long if c["error"]]

    @property
    def wrong(self):
        """Connections of either kind on which a wrong byte came."""
        return [c for c in self.connections if c["wrong"]]

    def gap(self, since):
        """Seconds from `since` until new connections succeed in time and go on doing so.

        The beginning of the first connection after the last one that failed or was late; 0 where none was.
        """
        after = [c for c in self.openers if c["begin"] >= since]
        bad = [c for c in self.openers if c["end"] >= since and (c["error"] or opening_took(c) > PROMPT_SECONDS)]
        if not bad:
            return 0.0
        good = [c["begin"] for c in after if c["begin"] > bad[-1]["begin"]]
        return good[0] - since if good else float("inf")

    def longest_wait(self):
        """Seconds, of any opener for its connection, and of any connection for an answer."""
        return max((max(c["wait"], opening_took(c)) for c in self.connections), default=0.0)

    def via(self, kind="opener", since=0.0, until=float("inf")):
        """How many connections that began in this time each balancer's address passed on."""
        return Counter(c.get("via") for c in self.connections if c["kind"] == kind and since <= c["begin"] < until)

    def servers(self, since=0.0, until=float("inf")):
        """How many new connections of this time each server had."""
        return Counter(c.get("server") for c in self.openers if since <= c["begin"] < until)

    def errors(self):
        """What went wrong and how often, in one line."""
        return ", ".join(f"{count}x {error}" for error, count in Counter(
            c["error"] for c in self.connections if c["error"]).most_common(4)) or "none"


def opening_took(connection):
    """Seconds until the connection stood, or until it was given up."""
    return connection.get("open", connection["end"]) - connection["begin"]
