"""One server's machine vanishes: how soon it is known to, and that nobody fails from then on."""

import json

from ha.scenario import Row, expect, scenario

VANISHES = "b"
# interval x fall + timeout of conf/ha/evenkeel.yaml, and what asking for the status takes.
DETECTED_SECONDS = 0.4 * 2 + 0.3
ASKING_SECONDS = 0.15


@scenario("backend")
def backend_vanishes(lab):
    """One backend host vanishes behind a single evenkeel, by its link going down."""
    lab.serve()
    lab.balance(lab.lb1)
    traffic = lab.traffic(lab.lb1.ipv4)
    lab.run_for(1)
    vanished = lab.now()
    lab.hosts[VANISHES].link("down")
    detection = lab.until("its server is down", lambda: state(lab.lb1, VANISHES) == "down")
    detected = lab.now()
    lab.run_for(3)
    result = traffic.stop()

    after = [c for c in result.openers if c["begin"] > detected]
    failed = [c for c in after if c["error"]]
    expect(result.servers(until=vanished)[VANISHES] > 0, f"{VANISHES} had connections before")
    expect(result.servers(since=detected)[VANISHES] == 0, f"{VANISHES} has no connections after")
    return [
        Row("one backend host vanishes", f"detected within {DETECTED_SECONDS:.1f} s (interval x fall + timeout)",
            f"{detection:.2f} s", met=detection <= DETECTED_SECONDS + ASKING_SECONDS),
        Row("the same, new connections", "0 failed after detection",
            f"{len(failed)} failed of {len(after)}; before it {len(result.failed) - len(failed)}",
            met=not failed and len(after) > 50),
    ]


def state(balancer, server):
    """What `evenkeel status` says of a server."""
    status = json.loads(balancer.run("evenkeel", "status", "--json"))
    return status["pools"]["web"]["servers"][server]["state"]
