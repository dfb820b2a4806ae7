"""An address that moves between two nodes: keepalived with the files of conf/ha/keepalived/ and
conf/ha/second-chance/, and each fault that the table of docs/high-availability.md has for it.

A clean move cuts nobody; a node that dies cuts what it had, and gives up the address in time.
"""

import itertools
import signal

from ha.lab import BALANCERS
from ha.pair import Pair, counted, is_willing, said_master
from ha.scenario import Row, expect, scenario

WITHIN_SECONDS = 1.0
SPLIT_SECONDS, SPLIT_TURNS = 5, 10
UPGRADES = 3
NO_FAILURE = "0 failed connections, 0 cut, 0 wrong bytes"


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
    return [struck(lab, "`kill -9` of the active evenkeel (VRRP)", signal.SIGKILL, "keepalived.conf")]


@scenario("vrrp-survive")
def active_is_killed_and_survives(lab):
    """kill -9 of the active evenkeel with survive_restart: the address moves, the connections stay."""
    pair = Pair(lab, config=lambda host: f"survive_restart: true\n{lab.config(host)}")
    traffic = pair.traffic()
    lab.run_for(1)
    since = lab.now()
    pair.evenkeels[pair.active.name].kill()
    pair.moved_to(pair.other)
    lab.run_for(0.5)
    pair.balance(pair.active)
    back = lab.now()
    lab.run_for(1.5)
    results = settled(traffic)
    expect(pair.holders() == [pair.other.name], "the address stays at the node that took over")
    lasting = [c for result in results for c in result.long]
    cut = sum(bool(c["error"]) or c["last"] < back for c in lasting)
    fault = "`kill -9` with `survive_restart`, started again a second later (VRRP)"
    return [within(fault, results, since),
            Row("its established connections", "0 cut", f"{cut} cut of {len(lasting)}, which were waited on for "
                f"{max(c['wait'] for c in lasting):.1f} s", not cut)]


@scenario("vrrp-hang")
def active_hangs(lab):
    """The active evenkeel hangs (SIGSTOP); with the unicast variant of keepalived's file."""
    return [struck(lab, "the active evenkeel hangs (VRRP, unicast)", signal.SIGSTOP, "keepalived-unicast.conf")]


def struck(lab, fault, signal_number, file):
    """The active evenkeel gets this signal."""
    pair = Pair(lab, file)
    traffic = pair.traffic()
    lab.run_for(1)
    since = lab.now()
    pair.evenkeels[pair.active.name].kill(signal_number)
    pair.moved_to(pair.other)
    lab.run_for(2)
    return within(fault, settled(traffic), since)


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

    traffic = pair.traffic()
    pair.active.link("up")
    lab.until("the node that is back may have the address", lambda: is_willing(pair.active))
    lab.run_for(1.5)
    expect(pair.holders() == [pair.other.name], "a node that is back does not take the address")
    line, met = sums(settled(traffic))
    return [
        within("active host vanishes (VRRP)", results, since),
        Row("its established connections", "known to be lost within 2 s, for lack of a peer to ask",
            f"all {sum(len(result.cut) for result in results)} cut, the last after {lasted:.2f} s", met=lasted < 2),
        Row("the host is back (VRRP)", NO_FAILURE, line, met),
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
    first, second = pair.active, pair.other
    traffic = pair.traffic()
    lab.run_for(1)
    left_and_back(lab, pair, first, second)
    # These begin at the second node, which then leaves in its turn.
    traffic += pair.traffic()
    lab.run_for(1)
    left_and_back(lab, pair, second, first)
    moved = lab.now()
    lab.run_for(1)
    results = settled(traffic)
    for host, family in itertools.product([first, second], ["ip", "ip6"]):
        expect(counted(host, family, "asked_there") > 100, f"{host.name} had the other node's packets ({family})")
    expect(all(c["last"] > moved for result in results for c in result.long if not c["error"]),
           "established connections exchanged messages after the last move")
    line, met = sums(results)
    return [Row("planned `evenkeel leave`, and the node's return, on one node and then the other (VRRP)",
                NO_FAILURE, line, met)]


def left_and_back(lab, pair, leaver, taker):
    """What was established exchanges messages meanwhile, through the other node."""
    leaver.run("evenkeel", "leave")
    pair.moved_to(taker)
    expect([said_master(host) for host in [taker, leaver]] == [1, 0], "node_exporter would know who has the address")
    lab.run_for(2)
    leaver.run("evenkeel", "join")
    lab.until("it may have the address again", lambda: is_willing(leaver))
    lab.run_for(0.5)
    expect(pair.holders() == [taker.name], "a node that is back does not take the address")


@scenario("vrrp-split")
def both_are_active(lab):
    """Both nodes believe to be active for 5 s, because VRRP does not get through."""
    pair = Pair(lab)
    traffic = pair.traffic()
    for name in BALANCERS:
        lab.hosts[name].run("nft", "-f", "-", said="table inet cut { chain input {"
                            " type filter hook input priority 0; ip protocol vrrp drop; }; }")
    lab.until("both have the address", lambda: len(pair.holders()) == 2)
    for _ in range(SPLIT_TURNS):
        # Whoever answers first has the router's packets until the next turn.
        lab.router.run("ip", "neighbour", "flush", "dev", "eth1")
        lab.run_for(SPLIT_SECONDS / SPLIT_TURNS)
    expect(len(pair.holders()) == 2, "both still have the address")
    for name in BALANCERS:
        lab.hosts[name].run("nft", "delete", "table", "inet", "cut")
    healed = lab.until("one node has the address", lambda: len(pair.holders()) == 1)
    lab.run_for(2)
    line, met = sums(settled(traffic))
    return [Row("both nodes are active for 5 s (VRRP cut)", f"{NO_FAILURE}; heals by itself",
                f"{line}; one holder {healed:.2f} s after", met)]


@scenario("vrrp-upgrade")
def upgrades_and_reloads(lab):
    """The active evenkeel is upgraded and reloaded, which must not move the address."""
    pair = Pair(lab)
    traffic = pair.traffic()
    for _ in range(UPGRADES):
        lab.run_for(0.5)
        pair.active.run("evenkeel", "upgrade")
        lab.run_for(0.5)
        pair.active.run("evenkeel", "reload")
    lab.run_for(1)
    line, met = sums(settled(traffic))
    moves = sum(daemon.said().count("Entering MASTER STATE") for daemon in pair.keepaliveds.values()) - 1
    return [Row(f"{UPGRADES} upgrades and reloads of the active evenkeel (VRRP)", f"{NO_FAILURE}; the address stays",
                f"{line}; {moves} moves", met and moves == 0)]
