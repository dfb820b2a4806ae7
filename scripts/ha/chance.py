"""The corners of conf/ha/second-chance/: packets of connections that neither node has, and SYN cookies,
of which no node knows either until they come back."""

import sys
from pathlib import Path

from ha.pair import VIP4, VIP6, Pair, counted
from ha.scenario import Row, scenario
from ha.vrrp import settled, sums

STRAY = Path(__file__).resolve().parent / "stray.py"
RESET_SECONDS = 0.5


@scenario("second-chance")
def corners(lab):
    """A connection that neither node has is reset at once; SYN cookies work."""
    pair = Pair(lab)
    # Traffic first, so that everybody on the way knows everybody: an address that has just come up may
    # take a router a second to find, which is not what is measured here.
    rows = [cookies(lab, pair)]
    for family, vip in [("IPv4", VIP4), ("IPv6", VIP6)]:
        rows.append(nobody_has_it(lab, pair, f"both nodes are up, {family}", vip))
    return [*rows, nobody_to_ask(lab, pair)]


def nobody_has_it(lab, pair, case, vip):
    took, how = lab.client.run(sys.executable, STRAY, vip, 80).split(maxsplit=1)
    return Row(f"a connection that no node has ({case})", f"reset within {RESET_SECONDS} s",
               f"{how.strip()} after {float(took) * 1000:.0f} ms", how.strip() == "reset" and float(took) < RESET_SECONDS)


def nobody_to_ask(lab, pair):
    """With the other node gone; its answers are remembered for a moment."""
    pair.other.link("down")
    lab.until("the other node is known to be gone", lambda: "expires" not in pair.active.run(
        "nft", "list", "set", "ip", "evenkeel_second_chance", "alive"))
    return nobody_has_it(lab, pair, "the other node is gone, IPv4", VIP4)


def cookies(lab, pair):
    """What the kernel does in a flood of SYNs, always: the answer to a SYN is remembered nowhere."""
    pair.active.run("sysctl", "-qw", "net.ipv4.tcp_syncookies=2")
    came_back = counted(pair.active, "ip", "nobodys")
    traffic = pair.traffic()
    lab.run_for(2)
    line, met = sums(settled(traffic))
    came_back = counted(pair.active, "ip", "nobodys") - came_back
    pair.active.run("sysctl", "-qw", "net.ipv4.tcp_syncookies=1")
    return Row("SYN cookies alone", "0 failed connections", f"{line}; {came_back} packets came back", met and came_back > 0)
