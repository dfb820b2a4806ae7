"""Same client, same server: with `ip_hash` a thousand clients find their server again at the other
node, after the one that they came to has died. The address moves as in vrrp.py.
"""

import json

from ha.lab import CONF, SOURCES_V4
from ha.pair import VIP4, Pair
from ha.scenario import Row, expect, scenario

CLIENTS = 1000
RATE = 200


def servers_by_client(lab, since_via):
    """Which server each client gets, all of them through the balancer `since_via`."""
    clients = lab.traffic(VIP4, rate=RATE, long=0, sources=SOURCES_V4)
    # Looking more often would cost the machine more than the clients do.
    lab.run_for(CLIENTS / RATE + 0.5)
    lab.until("every client has come", lambda: lab.run_for(0.5) or len(answered(clients.so_far())) == CLIENTS)
    result = clients.stop()
    expect(not result.failed, f"nobody fails: {result.errors()}")
    expect(set(result.via()) == {since_via.ipv4}, f"all came by {since_via.name}: {result.via()}")
    return answered(result)


def answered(result):
    return {opener["source"]: opener["server"] for opener in result.openers if not opener["error"]}


def hashed(host):
    """conf/ha/evenkeel.yaml with ip_hash; its servers are listed in another order on lb2."""
    text = (CONF / "evenkeel.yaml").read_text().replace("10.0.0.2:9900", f"{host.ipv4}:9900")
    head, servers = text.split("    servers:\n")
    lines = [line for line in servers.splitlines() if line.strip().startswith("- {name:")]
    if host.name == "lb2":
        lines.reverse()
    return head.replace("  web:\n    # A server", "  web:\n    algorithm: ip_hash\n    # A server") \
        + "\n".join(["    servers:", *lines]) + "\n"


@scenario("affinity")
def same_server_after_failover(lab):
    """1,000 clients ask which server they get, the active node is killed, they ask again."""
    pair = Pair(lab, config=hashed)
    for host in pair.roles():
        pools = json.loads(host.run("evenkeel", "status", "--json"))["pools"]
        expect(pools["web"]["algorithm"] == "ip_hash", f"{host.name} picks by ip_hash")
    before = servers_by_client(lab, pair.active)
    pair.evenkeels[pair.active.name].kill()
    pair.moved_to(pair.other)
    after = servers_by_client(lab, pair.other)
    same = sum(before[client] == after[client] for client in before)
    shares = ", ".join(str(list(before.values()).count(server)) for server in sorted(set(before.values())))
    return [Row("`ip_hash`, the active evenkeel is killed (VRRP)", f"the same server for each of {CLIENTS} clients",
                f"{same} of {CLIENTS}; servers have {shares} of them", met=same == CLIENTS and len(set(before.values())) == 3)]
