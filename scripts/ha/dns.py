"""A name that gdnsd answers with the nodes that are ready: how soon one is gone from answers, how
soon it is back, and what clients of the name notice. Both nodes run gdnsd and evenkeel, with the
files of conf/ha/gdnsd/ as they are.
"""

import json
import re
import sys
from pathlib import Path

from ha.lab import CONF
from ha.scenario import Failed, Row, expect, scenario

FILES = CONF / "gdnsd"
NAME = "www.lb.example.com"
RESOLVING = Path(__file__).resolve().parent / "resolving.py"
# Questions come every 50 ms, and two cores have more to do than that.
SLACK_SECONDS = 0.5
# A name server or an address that is dead may cost a client this, and no more.
PROMPT_SECONDS = 1.0
RECENT_SECONDS = 1.0
# Being back takes a dozen steps of four processes, each late on a busy machine.
BACK_SLACK_SECONDS = 1.5


def figure(file, word):
    """A number of gdnsd's configuration or zone, which is where targets come from."""
    return int(re.search(word, (FILES / file).read_text(), re.MULTILINE).group(1))


INTERVAL = figure("config", r"^ *interval => (\d+)")
TIMEOUT = figure("config", r"^ *timeout => (\d+)")
DOWN = figure("config", r"^ *down_thresh => (\d+)")
UP = figure("config", r"^ *up_thresh => (\d+) *$")
TTL = figure("zones/lb.example.com", r"^www +(\d+)/")
# gdnsd gathers what its checks say for a second before it answers accordingly.
GATHERING_SECONDS = 1
REFUSED_SECONDS = INTERVAL * DOWN + GATHERING_SECONDS
SILENT_SECONDS = INTERVAL * DOWN + TIMEOUT + GATHERING_SECONDS
BACK_SECONDS = INTERVAL * UP + GATHERING_SECONDS
# A node without network has no servers either. They are up again after `rise` checks of evenkeel's, and one whose timeout began before.
SERVERS_UP_SECONDS = 0.3 + 0.4 * 2


class Names:
    """Both nodes with evenkeel and gdnsd, and the clients that go by the name."""

    def __init__(self, lab):
        self.lab = lab
        lab.serve()
        self.evenkeels = {host: self.balance(host) for host in [lab.lb1, lab.lb2]}
        for host in [lab.lb1, lab.lb2]:
            host.put("/etc/gdnsd/config", FILES / "config")
            host.put("/etc/gdnsd/zones/lb.example.com", FILES / "zones/lb.example.com")
            daemon = host.start("gdnsd", "/usr/sbin/gdnsd", "start")
            lab.until(f"gdnsd on {host.name} answers", lambda d=daemon: "DNS listeners started" in d.said())
        self.records, self._read, self._lines = lab.logs / "resolving.json", 0, []
        self.clients = lab.client.start("resolving", sys.executable, RESOLVING, NAME, 80, self.records,
                                        lab.lb1.ipv4, lab.lb2.ipv4)
        lab.until("all addresses are answered", self.all_are_answered, seconds=15)

    def balance(self, host):
        return self.lab.balance(host, (FILES / "evenkeel.yaml").read_text())

    def lines(self):
        if not self.clients.running():
            raise Failed(f"resolving.py ended: {self.clients.said()[-500:]}")
        # Only what is new, because it is asked for fifty times a second.
        if self.records.exists():
            with open(self.records) as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition("\n")
            self._read += len(whole + newline)
            self._lines += [json.loads(line) for line in whole.splitlines()]
        return self._lines

    def answers(self):
        return [line for line in self.lines() if line["kind"] == "question" and line["addresses"]]

    def latest(self):
        """The latest answer to each question, of those name servers that have answered just now."""
        recent = self.lab.now() - RECENT_SECONDS
        return {line["at"]: set(line["addresses"]) for line in self.answers() if line["end"] > recent}.values()

    def all_are_answered(self):
        latest = self.latest()
        return len(latest) >= 4 and all(len(addresses) == 2 for addresses in latest)

    def without(self, host, since):
        """Waits until no answer has the host's addresses any more; seconds from `since`."""
        its_own = {host.ipv4, host.ipv6}
        self.lab.until(f"{host.name} is gone from answers",
                       lambda: not any(its_own & addresses for addresses in self.latest()), seconds=SILENT_SECONDS * 2)
        self.lab.run_for(1)
        having = [line["end"] for line in self.answers() if its_own & set(line["addresses"])]
        return having[-1] - since

    def having(self, host, since):
        """Waits until every answer has all addresses again; seconds from `since`."""
        self.lab.until(f"{host.name} is back in answers", self.all_are_answered, seconds=BACK_SECONDS * 2)
        lacking = [line["end"] for line in self.answers() if not {host.ipv4, host.ipv6} & set(line["addresses"])]
        return lacking[-1] - since

    def opened(self, kind, since=0.0):
        """Connections that began since then."""
        return [line for line in self.lines() if line["kind"] == kind and line["begin"] >= since]

    def failed(self, kinds=("fresh", "caching", "trying"), since=0.0):
        return [line for kind in kinds for line in self.opened(kind, since) if line["error"]]

    def gap(self, kind, since):
        """Seconds from `since` until connections of this kind of client succeed in time, and go on so."""
        opened = sorted(self.opened(kind, since), key=lambda line: line["begin"])
        bad = [line["begin"] for line in opened if line["error"] or line["end"] - line["begin"] > PROMPT_SECONDS]
        if not bad:
            return 0.0
        good = [line["begin"] for line in opened if line["begin"] > bad[-1]]
        return good[0] - since if good else float("inf")

    def noticed(self, fault, since, gone_seconds):
        """The row of what each kind of client noticed of a node that died at `since`."""
        gaps = {kind: self.gap(kind, since) for kind in ["fresh", "caching", "trying"]}
        errors = len(self.failed(["trying"], since))
        target = gone_seconds + TTL
        return Row(f"{fault}, clients", f"at most {target} s (gone and TTL); 0 failed for clients that try the next address",
                   f"{gaps['fresh']:.1f} s asking each time, {gaps['caching']:.1f} s keeping answers for the TTL of {TTL} s; "
                   f"{errors} failed of {len(self.opened('trying', since))} that try the next address",
                   met=errors == 0 and gaps["fresh"] <= gone_seconds + SLACK_SECONDS
                   and gaps["caching"] <= target + SLACK_SECONDS)


def gone_row(fault, took, seconds, how):
    return Row(f"{fault}: gone from answers", f"within {seconds} s ({how})", f"{took:.1f} s",
               met=took <= seconds + SLACK_SECONDS)


@scenario("dns", waits=True)
def dns(lab):
    """A name with two nodes: `leave`, `join`, and kill -9 of one evenkeel."""
    names = Names(lab)
    direct = lab.traffic(lab.lb1.ipv4, rate=20)
    lab.run_for(0.5)

    left = lab.now()
    lab.lb1.run("evenkeel", "leave")
    gone = names.without(lab.lb1, left)
    joined = lab.now()
    lab.lb1.run("evenkeel", "join")
    back = names.having(lab.lb1, joined)
    lab.run_for(0.5)
    at_lb1 = direct.stop()
    failed = names.failed()
    expect(len(at_lb1.openers) > 100, "connections came to the node that had left")
    rows = [
        gone_row("DNS, planned `evenkeel leave`", gone, REFUSED_SECONDS, "interval x failures + 1 s"),
        Row("DNS, `leave` and `join`, connections", "0 failed, established ones go on",
            f"{len(failed)} failed of {sum(len(names.opened(kind)) for kind in ['fresh', 'caching', 'trying'])} by name, "
            f"{len(at_lb1.failed)} of {len(at_lb1.openers)} that came to the node all the time; "
            f"{len(at_lb1.cut)} of {len(at_lb1.long)} established cut",
            met=not failed and not at_lb1.failed and not at_lb1.cut and not at_lb1.wrong),
        Row("DNS, `evenkeel join`: back in answers", f"within {BACK_SECONDS} s (interval x up_thresh + 1 s)",
            f"{back:.1f} s", met=back <= BACK_SECONDS + BACK_SLACK_SECONDS),
    ]

    # Some clients have both addresses again by then; none has that of lb1 alone.
    lab.run_for(TTL / 2)
    killed = lab.now()
    names.evenkeels[lab.lb1].kill()
    gone = names.without(lab.lb1, killed)
    lab.run_for(max(0, killed + gone + TTL - lab.now()) + 0.5)
    rows.append(gone_row("DNS, `kill -9` of one evenkeel", gone, REFUSED_SECONDS, "interval x failures + 1 s"))
    rows.append(names.noticed("DNS, `kill -9` of one evenkeel", killed, REFUSED_SECONDS))
    return rows


@scenario("dns-vanishes", waits=True)
def dns_vanishes(lab):
    """A name with two nodes: the host of one vanishes, gdnsd with it, and comes back."""
    names = Names(lab)
    vanished = lab.now()
    lab.lb1.link("down")
    gone = names.without(lab.lb1, vanished)
    lab.run_for(max(0, vanished + gone + TTL - lab.now()) + 0.5)
    rows = [
        gone_row("DNS, one host vanishes", gone, SILENT_SECONDS, "interval x failures + timeout + 1 s"),
        names.noticed("DNS, one host vanishes", vanished, SILENT_SECONDS),
    ]
    returned = lab.now()
    lab.lb1.link("up")
    back = names.having(lab.lb1, returned)
    lab.run_for(0.5)
    failed = names.failed(since=returned)
    rows.append(Row("DNS, the host returns", "0 failed; back in answers within "
                    f"{BACK_SECONDS + SERVERS_UP_SECONDS:.1f} s (its own servers up, then interval x up_thresh + 1 s)",
                    f"{len(failed)} failed; {back:.1f} s",
                    met=not failed and back <= BACK_SECONDS + SERVERS_UP_SECONDS + BACK_SLACK_SECONDS))
    return rows
