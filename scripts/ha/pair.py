"""Two nodes that share an address by keepalived, with the files of conf/ha/ and a usual firewall.

Knows how they are set up and who has the address; what happens to them is for scenarios.
"""

import json

from ha.lab import BALANCERS, CONF

VIP4, VIP6 = "10.0.0.10", "2001:db8::10"
# What machines have that face clients; it tracks connections, which moves of the address must bear.
FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        ct state invalid drop
        iifname "lo" accept
        meta l4proto { icmp, icmpv6, vrrp } accept
        ip saddr 10.0.0.0/24 accept
        tcp dport 80 accept
    }
}
"""


class Pair:
    """Two evenkeels, keepalived beside each, and the address at `active`."""

    def __init__(self, lab, file="keepalived.conf", config=lambda host: None):
        """`file` is keepalived's, `config` gives the text of evenkeel's for each host [conf/ha/evenkeel.yaml]."""
        self.lab, self._config = lab, config
        lab.serve()
        self.evenkeels, self.keepaliveds = {}, {}
        for host, other in self._nodes():
            host.run("nft", "-f", "-", said=FIREWALL)
            second_chance(host, other)
            self.balance(host)
            self.keepaliveds[host.name] = keepalived(host, file)
        lab.until("one node has the address", lambda: len(self.holders()) == 1)
        self.active, self.other = self.roles()
        lab.until("both nodes may have it", lambda: all(is_willing(host) for host, _ in self._nodes()))

    def _nodes(self):
        first, second = (self.lab.hosts[name] for name in BALANCERS)
        return [(first, second), (second, first)]

    def balance(self, host):
        """evenkeel on `host`, or again where it has died."""
        self.evenkeels[host.name] = self.lab.balance(host, self._config(host))

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


def keepalived(host, file):
    """keepalived with `file` of conf/ha/keepalived/, and what writes its priority."""
    folder = CONF / "keepalived"
    host.run("mkdir", "-p", "/run/evenkeel-track", "/var/lib/prometheus/node-exporter")
    host.put("/usr/local/sbin/evenkeel-track", folder / "evenkeel-track", mode=0o755)
    host.put("/usr/local/sbin/evenkeel-notify", folder / "evenkeel-notify", mode=0o755)
    host.put("/etc/keepalived/keepalived.conf", folder / file)
    host.start("track", "/usr/local/sbin/evenkeel-track")
    return host.start("keepalived", "keepalived", "--dont-fork", "--log-console", "--vrrp")


def is_willing(host):
    return host.run("cat", "/run/evenkeel-track/priority", check=False).strip() == "100"


def counted(host, family, name):
    """Packets of a counter of the rules of conf/ha/second-chance/."""
    said = json.loads(host.run("nft", "--json", "list", "counter", family, "evenkeel_second_chance", name))
    return next(item["counter"]["packets"] for item in said["nftables"] if "counter" in item)


def said_master(host):
    """The metric that conf/ha/keepalived/evenkeel-notify leaves for node_exporter, which is not root."""
    file = "/var/lib/prometheus/node-exporter/evenkeel_vrrp_service.prom"
    return int(host.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", file).split()[-1])
