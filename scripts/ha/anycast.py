"""Anycast: both nodes announce the service's addresses by BGP, and the router spreads clients (ECMP).

BIRD runs on the router and on the nodes, with the files of conf/ha/bird/ as they are; or ExaBGP on
the nodes, with those of conf/ha/exabgp/. Every scenario has clients of both families. What is done
is done to lb1; whoever is connected through lb2 must not notice at all.
"""

import re

from ha.lab import CONF
from ha.pair import FIREWALL, counted, second_chance
from ha.scenario import Row, expect, scenario
from ha.traffic import PROMPT_SECONDS, opening_took

SERVICE = ["192.0.2.10", "2001:db8:a::10"]
BIRD, EXABGP = CONF / "bird", CONF / "exabgp"
# hold time of conf/ha/bird/, and what BIRD may take to act on it: its timers are not exact.
HOLD_SECONDS, ACTING_SECONDS = 3.0, 1.0
RATE, LONG = 25, 20
# BGP and BFD, which a node's firewall must let in.
FROM_ROUTER = """
add rule inet firewall input ip6 saddr 2001:db8::1 tcp dport 179 accept
add rule inet firewall input ip6 saddr 2001:db8::1 udp dport 3784 accept
"""
NO_BFD = """
table inet no_bfd {
    chain arriving {
        type filter hook input priority filter
        udp dport 3784 drop
    }
}
"""


class Anycast:
    """Nodes that announce the service, and a router that has a path to each, for both families."""

    def __init__(self, lab, speaker, bfd_passes=True):
        self.lab, self.nodes = lab, [lab.lb1, lab.lb2]
        if not bfd_passes:
            lab.router.run("nft", "-f", "-", said=NO_BFD)
        lab.router.run("sysctl", "-q", "-p", BIRD / "90-evenkeel-router.conf")
        bird(lab.router, BIRD / "bird-router.conf")
        lab.serve()
        for node, peer in zip(self.nodes, reversed(self.nodes)):
            node.run("nft", "-f", "-", said=FIREWALL + FROM_ROUTER)
            second_chance(node, peer)
        self.balancers = {node.name: lab.balance(node) for node in self.nodes}
        self.speakers = {node.name: speaker(node) for node in self.nodes}
        lab.until("the router has two paths", lambda: self.paths() == [2, 2], seconds=15)
        if bfd_passes and speaker is bird_on:
            lab.until("BFD watches every path", lambda: self._watched() == 4)

    def paths(self):
        """How many nodes the router's kernel sends to, for each family."""
        routes = [self.lab.router.run("ip", family, "route", "show", address)
                  for family, address in zip(["-4", "-6"], SERVICE)]
        return [len(re.findall(r"\bvia\b", route)) for route in routes]

    def _watched(self):
        return len(re.findall(r"\bUp\b", self.lab.router.run("birdc", "show", "bfd", "sessions")))

    def gone(self):
        return self.lab.until("the router has one path", lambda: self.paths() == [1, 1])

    def back(self):
        return self.lab.until("the router has two paths again", lambda: self.paths() == [2, 2], seconds=15)

    def traffic(self):
        return [self.lab.traffic(address, rate=RATE, long=LONG) for address in SERVICE]


def bird(host, conf):
    """BIRD as Debian's unit runs it."""
    host.put("/etc/bird/bird.conf", conf)
    host.run("mkdir", "-p", "/run/bird")
    return host.start("bird", "bird", "-f")


def bird_on(node):
    """What evenkeel-bird.service does, after bird.service."""
    addressed(node)
    daemon = bird(node, BIRD / "bird.conf")
    node.start("evenkeel-bird", BIRD / "evenkeel-bird")
    return daemon


def exabgp_on(node):
    """What exabgp.service does, with evenkeel.conf as its drop-in."""
    addressed(node)
    # As on any machine; ExaBGP asks the DNS for its own name otherwise, and waits in vain.
    node.put("/etc/hosts", f"127.0.0.1 localhost\n{node.ipv4} {node.name}\n")
    conf = (EXABGP / "exabgp.conf").read_text()
    node.put("/etc/exabgp/exabgp.conf", conf.replace("10.0.0.2", node.ipv4).replace("2001:db8::2", node.ipv6))
    return node.start("exabgp", "env", "exabgp_log_level=WARNING", "exabgp_daemon_user=root",
                      "exabgp", "/etc/exabgp/exabgp.conf")


def addressed(node):
    for address, length in zip(SERVICE, [32, 128]):
        node.run("ip", "address", "replace", f"{address}/{length}", "dev", "lo", "preferred_lft", 0)


def asked_by(node):
    """Packets of each family that a node had for the other one (second chance)."""
    return [counted(node, family, "asked_there") for family in ["ip", "ip6"]]


class Both:
    """Results of both families, as one."""

    def __init__(self, traffic):
        self.results = [each.stop() for each in traffic]
        self.connections = [connection for result in self.results for connection in result.connections]
        self.opened = sum(len(result.openers) for result in self.results)
        self.failed = sum(len(result.failed) for result in self.results)
        self.cut = [connection for result in self.results for connection in result.cut]
        self.long = [connection for result in self.results for connection in result.long]
        expect(not any(result.wrong for result in self.results), "no wrong byte came")
        expect(self.opened > 50, "new connections were tried")

    def gap(self, since):
        """The longer of the families' gaps."""
        return max(result.gap(since) for result in self.results)

    def late(self, since):
        """New connections that came to stand, but not at once."""
        return sum(c["begin"] >= since and not c["error"] and opening_took(c) > PROMPT_SECONDS
                   for result in self.results for c in result.openers)

    def through(self, node):
        """Long connections that are this node's."""
        return [c for c in self.long if c.get("via") in (node.ipv4, node.ipv6)]

    def errors(self):
        return "; ".join(result.errors() for result in self.results)


def undisturbed(result, what):
    """A row for what must cost nobody anything."""
    wait = max(each.longest_wait() for each in result.results)
    return Row(what, "0 failed connections, established ones finish",
               f"{result.failed} failed of {result.opened}, {len(result.cut)} cut of {len(result.long)}; "
               f"longest wait {wait:.2f} s" + (f" ({result.errors()})" if result.failed or result.cut else ""),
               met=not result.failed and not result.cut)


def rows_of_loss(lab, traffic, since, target_seconds, target, what):
    """Rows for a fault that takes a node away: new connections, and the established ones of either node."""
    result = Both(traffic)
    gap, late = result.gap(since), result.late(since)
    lost, others = result.through(lab.lb1), result.through(lab.lb2)
    expect(len(others) > 2 and len(lost) > 2, "both nodes had established connections")
    cut = [c for c in others if c["error"]]
    known = [c["end"] - since for c in lost if c["error"]]
    return [
        Row(f"{what}: new connections", target,
            f"after {gap:.2f} s; until then {result.failed} failed and {late} late, of {result.opened} in all",
            met=0 < gap <= target_seconds),
        Row(f"{what}: established connections", "0 cut of the living node's",
            f"{len(cut)} cut of the living node's {len(others)}, longest wait {max(c['wait'] for c in others):.2f} s; "
            f"of the other's {len(lost)} {len(known)} cut, known after {max(known, default=0):.2f} s",
            met=not cut),
    ]


def leaves_and_returns(lab, anycast, engine):
    """Planned: `leave` under traffic, then `join` under traffic that began without the node."""
    traffic = anycast.traffic()
    lab.run_for(0.7)
    left = lab.now()
    lab.lb1.run("evenkeel", "leave")
    withdrawn = anycast.gone()
    settled = lab.now()
    lab.run_for(1)
    result = Both(traffic)
    leave = undisturbed(result, f"`evenkeel leave` ({engine})")
    leave.measured += f"; withdrawn after {withdrawn:.2f} s"
    expect(len(result.through(lab.lb1)) > 2, "the leaving node had established connections")
    expect(all(asked > 10 for asked in asked_by(lab.lb2)), "their packets came to the other node")
    late = [c for c in result.connections if c["begin"] > settled and c.get("via") in (lab.lb1.ipv4, lab.lb1.ipv6)]
    expect(left < settled and not late, "a withdrawn node gets no new connection")
    return [leave, returns(lab, anycast, engine, lambda: lab.lb1.run("evenkeel", "join"))]


def returns(lab, anycast, engine, come_back):
    """The node comes back under traffic that lives on the other; the router then sends it some of that."""
    traffic = anycast.traffic()
    lab.run_for(0.3)
    come_back()
    anycast.back()
    lab.run_for(1)
    result = Both(traffic)
    expect(len(result.through(lab.lb2)) == len(result.long), "all established connections began on the other node")
    expect(all(asked > 10 for asked in asked_by(lab.lb1)), "packets of some of them came to the node that is back")
    return undisturbed(result, f"node returns ({engine})")


def dies(lab, anycast, engine):
    """kill -9 of lb1's evenkeel, its host stays up."""
    traffic = anycast.traffic()
    lab.run_for(0.7)
    killed = lab.now()
    anycast.balancers["lb1"].kill()
    anycast.gone()
    lab.run_for(1)
    return rows_of_loss(lab, traffic, killed, 1, "within 1 s", f"`kill -9` of one evenkeel ({engine})")


def vanishes(lab, anycast, seconds, target, what):
    """lb1's host, by its link going down."""
    traffic = anycast.traffic()
    lab.run_for(0.7)
    vanished = lab.now()
    lab.lb1.link("down")
    anycast.gone()
    lab.run_for(1)
    return rows_of_loss(lab, traffic, vanished, seconds, target, what)


@scenario("anycast-leave")
def planned(lab):
    """A node leaves by `evenkeel leave`, and returns by `join`; then its BIRD is killed."""
    anycast = Anycast(lab, bird_on)
    rows = leaves_and_returns(lab, anycast, "anycast, BIRD")
    traffic = anycast.traffic()
    lab.run_for(0.5)
    anycast.speakers["lb1"].kill()
    anycast.gone()
    lab.run_for(1)
    return [*rows, undisturbed(Both(traffic), "`kill -9` of one BIRD")]


@scenario("anycast-kill")
def killed(lab):
    """kill -9 of one evenkeel, which is started again later."""
    anycast = Anycast(lab, bird_on)
    rows = dies(lab, anycast, "anycast, BIRD")
    return [*rows, returns(lab, anycast, "anycast, after `kill -9`", lambda: lab.balance(lab.lb1))]


@scenario("anycast-vanish")
def vanished(lab):
    """A host vanishes, with BFD, and returns."""
    anycast = Anycast(lab, bird_on)
    rows = vanishes(lab, anycast, 1, "within 1 s", "host vanishes (anycast, BFD)")
    return [*rows, returns(lab, anycast, "anycast, after it vanished", lambda: lab.lb1.link("up"))]


@scenario("anycast-vanish-without-bfd")
def vanished_without_bfd(lab):
    """A host vanishes where BFD does not get through: the hold time counts."""
    anycast = Anycast(lab, bird_on, bfd_passes=False)
    return vanishes(lab, anycast, HOLD_SECONDS + ACTING_SECONDS, f"within the BGP hold time, {HOLD_SECONDS:.0f} s + {ACTING_SECONDS:.0f} s",
                    "host vanishes (anycast, no BFD)")


@scenario("anycast-exabgp")
def with_exabgp(lab):
    """ExaBGP instead of BIRD on the nodes: leave, return, kill -9."""
    anycast = Anycast(lab, exabgp_on)
    return [*leaves_and_returns(lab, anycast, "anycast, ExaBGP"), *dies(lab, anycast, "anycast, ExaBGP")]
