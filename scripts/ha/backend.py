"""A server's machine vanishes: how soon it is known to, and that nobody fails from then on."""

import json

from ha.lab import SERVERS
from ha.scenario import Row, expect, scenario

# interval x fall + timeout of conf/ha/evenkeel.yaml, and what asking for the status takes.
DETECTED_SECONDS = 0.4 * 2 + 0.3
ASKING_SECONDS = 0.15


@scenario("backend")
def backend_vanishes(lab):
    """One backend host after the other vanishes behind a single evenkeel, by its link going down."""
    lab.serve()
    lab.balance(lab.lb1)
    traffic = lab.traffic(lab.lb1.ipv4)
    lab.run_for(1)
    times = [vanish(lab, server) for server in SERVERS]
    result = traffic.stop()

    after = {server: [c for c in result.openers if detected < c["begin"] < until]
             for server, (_, detected, until) in zip(SERVERS, times)}
    for server, connections in after.items():
        expect(not any(c.get("server") == server for c in connections), f"{server} has no connections after")
    expect(set(result.servers()) == set(SERVERS), "each had some before")
    opened = sum(map(len, after.values()))
    failed = sum(bool(c["error"]) for connections in after.values() for c in connections)
    # A check that a busy machine delayed is not believed, and the next one is waited for: the median.
    detections = sorted(detected - vanished for vanished, detected, _ in times)
    return [
        Row("one backend host vanishes", f"detected within {DETECTED_SECONDS:.1f} s (interval x fall + timeout)",
            f"{detections[1]:.2f} s, the median of {', '.join(f'{seconds:.2f}' for seconds in detections)}",
            met=detections[1] <= DETECTED_SECONDS + ASKING_SECONDS),
        Row("the same, new connections", "0 failed after detection",
            f"{failed} failed of {opened}; before it {len(result.failed) - failed}", met=not failed and opened > 100),
    ]


def vanish(lab, server):
    """When it vanished, when evenkeel knew, and until when that lasted."""
    vanished = lab.now()
    lab.hosts[server].link("down")
    lab.until(f"{server} is known to be down", lambda: state(lab.lb1, server) == "down")
    detected = lab.now()
    lab.run_for(1)
    until = lab.now()
    lab.hosts[server].link("up")
    lab.until(f"{server} is up again", lambda: state(lab.lb1, server) == "up")
    return vanished, detected, until


def state(balancer, server):
    """What `evenkeel status` says of a server."""
    status = json.loads(balancer.run("evenkeel", "status", "--json"))
    return status["pools"]["web"]["servers"][server]["state"]
