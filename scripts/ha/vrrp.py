"""An address that moves between two nodes: keepalived with the files of conf/ha/keepalived/ and
conf/ha/second-chance/, and each fault that the table of docs/high-availability.md has for it.

A clean move cuts nobody; a node that dies cuts what it had, and gives up the address in time.
"""

import contextlib

from ha.lab import BALANCERS, CONF
from ha.scenario import Row, expect, scenario

VIP4, VIP6 = "10.0.0.10", "2001:db8::10"
WITHIN_SECONDS = 1.0
NO_FAILURE = "0 failed connections, 0 cut, 0 wrong bytes"


class Pair:
    """Two evenkeels, keepalived beside each, and the address at `active`."""

    def __init__(self, lab):
        self.lab = lab
        lab.serve()
        self.evenkeels, self.keepaliveds = {}, {}
        for host, other in self._nodes():
            second_chance(host, other)
            self.evenkeels[host.name] = lab.balance(host)
            self.keepaliveds[host.name] = keepalived(host)
        lab.until("one node has the address", lambda: len(self.holders()) == 1)
        self.active, self.other = self.roles()
        lab.until("both nodes may have it", lambda: all(is_willing(host) for host, _ in self._nodes()))

    def _nodes(self):
        first, second = (self.lab.hosts[name] for name in BALANCERS)
        return [(first, second), (second, first)]

    def holders(self):
        """Names of the nodes that have both addresses on the LAN."""
        return [host.name for host, _ in self._nodes()
                if all(f" {vip}/" in host.run("ip", "-o", "address", "show", "dev", "eth0") for vip in [VIP4, VIP6])]

    def roles(self):
        """The host that has the addresses, and the other one."""
        [holder] = self.holders()
        return next((host, other) for host, other in self._nodes() if host.name == holder)

    def moved_to(self, host, seconds=5):
        """Waits until `host`, and nobody else, has the address."""
        return self.lab.until(f"{host.name} alone has the address", lambda: self.holders() == [host.name], seconds)

    def traffic(self):
        """Clients of both families."""
        return [self.lab.traffic(VIP4), self.lab.traffic(VIP6)]


def second_chance(host, other):
    """conf/ha/second-chance/ on `host`, as its text says."""
    folder = CONF / "second-chance"
    env = (folder / "second-chance.env").read_text()
    host.put("/etc/evenkeel/second-chance.env",
             env.replace("PEER4=10.0.0.3", f"PEER4={other.ipv4}").replace("PEER6=2001:db8::3", f"PEER6={other.ipv6}"))
    return host.start("second-chance", folder / "evenkeel-second-chance")


def keepalived(host):
    """keepalived with conf/ha/keepalived/, and what writes its file."""
    folder = CONF / "keepalived"
    host.run("mkdir", "-p", "/run/evenkeel-track", "/var/lib/prometheus/node-exporter")
    host.put("/usr/bin/evenkeel-track", folder / "evenkeel-track", mode=0o755)
    host.put("/usr/local/sbin/evenkeel-notify", folder / "evenkeel-notify", mode=0o755)
    host.put("/etc/keepalived/keepalived.conf", folder / "keepalived.conf")
    host.start("track", "/usr/bin/evenkeel-track")
    return host.start("keepalived", "keepalived", "--dont-fork", "--log-console", "--vrrp")


def is_willing(host):
    return host.run("cat", "/run/evenkeel-track/priority", check=False).strip() == "0"


def sums(results):
    """What must be zero, of both families, in a line, and whether it is."""
    opened, failed, cut, wrong = (sum(len(getattr(result, what)) for result in results)
                                  for what in ["openers", "failed", "cut", "wrong"])
    established = sum(len(result.long) for result in results)
    longest = max(result.longest_wait() for result in results)
    errors = "; ".join(result.errors() for result in results if result.failed or result.cut or result.wrong)
    line = f"{failed} failed of {opened}, {cut} cut of {established}, {wrong} wrong, longest wait {longest * 1000:.0f} ms"
    return f"{line} ({errors})" if errors else line, opened > 100 and not failed + cut + wrong


def settled(traffic):
    return [clients.stop() for clients in traffic]


@scenario("vrrp-kill")
def active_is_killed(lab):
    """kill -9 of the active evenkeel, whose host stays up."""
    pair = Pair(lab)
    traffic = pair.traffic()
    lab.run_for(1)
    since = lab.now()
    pair.evenkeels[pair.active.name].kill()
    pair.moved_to(pair.other)
    lab.run_for(2)
    return [within("`kill -9` of the active evenkeel (VRRP)", settled(traffic), since)]


@scenario("vrrp-vanish")
def active_vanishes(lab):
    """The active host vanishes: its link goes down."""
    pair = Pair(lab)
    traffic = pair.traffic()
    lab.run_for(1)
    since = lab.now()
    pair.active.link("down")
    lab.until("the other node has the address", lambda: pair.other.name in pair.holders())
    lab.run_for(3)
    results = settled(traffic)
    lasted = max(c["end"] - since for result in results for c in result.cut)
    return [
        within("active host vanishes (VRRP)", results, since),
        Row("its established connections", "known to be lost within 2 s, for lack of a peer to ask",
            f"all {sum(len(result.cut) for result in results)} cut, the last after {lasted:.2f} s", met=lasted < 2),
    ]


def within(fault, results, since):
    gap = max(result.gap(since) for result in results)
    wrong = sum(len(result.wrong) for result in results)
    return Row(fault, f"new connections succeed again within {WITHIN_SECONDS:.0f} s, no wrong bytes",
               f"{gap:.2f} s, {wrong} wrong", met=0 < gap <= WITHIN_SECONDS and not wrong)


@scenario("vrrp-leave")
def leave_and_join(lab):
    """`evenkeel leave` of the active node, its return, and the same the other way round."""
    pair = Pair(lab)
    rows = []
    traffic = pair.traffic()
    first, second = pair.active, pair.other
    for leaver, taker in [(first, second), (second, first)]:
        lab.run_for(1)
        leaver.run("evenkeel", "leave")
        pair.moved_to(taker)
        left = lab.now()
        # What was established exchanges messages for this long, through the other node.
        lab.run_for(2)
        leaver.run("evenkeel", "join")
        lab.until("it may have the address again", lambda leaver=leaver: is_willing(leaver))
        lab.run_for(1)
        expect(pair.holders() == [taker.name], "a node that is back does not take the address")
    results = settled(traffic)
    line, met = sums(results)
    rows.append(Row("planned `evenkeel leave`, and the node's return, on one node and then the other (VRRP)",
                    NO_FAILURE, line, met))
    went_on = [c for result in results for c in result.long if c["via"] == first.ipv4 or c["via"] == first.ipv6]
    expect(all(c["last"] > left for c in went_on) and went_on, "established connections went on after the moves")
    return rows
