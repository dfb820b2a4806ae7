"""The network of a lab, with the addresses of the files in conf/ha/, and what stands in it.

    client --- router --- LAN: lb1, lb2 (evenkeel), a, b, c (servers that echo)

    client  198.18.0.2    2001:db8:18::2   and 198.18.4.0/22, 2001:db8:18:1::/64 as further sources
    router  198.18.0.1    2001:db8:18::1   eth1: 10.0.0.1   2001:db8::1
    lb1     10.0.0.2      2001:db8::2      lb2: 10.0.0.3   2001:db8::3
    a b c   10.0.0.21-23  2001:db8::21-23  port 8080

The service listens at port 80 of the balancers; which address leads there is a scenario's matter.
The namespace that this runs in is the switch: host X hangs on its port v-X.
"""

import subprocess
import sys
import time
from pathlib import Path

from ha.hosts import Host
from ha.scenario import Failed
from ha.traffic import Traffic

ROOT = Path(__file__).resolve().parent.parent.parent
CONF = ROOT / "conf" / "ha"
SERVERS = ["a", "b", "c"]
BALANCERS = ["lb1", "lb2"]
ADDRESSES = {"lb1": 2, "lb2": 3, "a": 21, "b": 22, "c": 23}
SOURCES_V4, SOURCES_V6 = "198.18.4.0/22", "2001:db8:18:1::/64"


class Lab:
    """All hosts, in `hosts` and as attributes: `lab.client`, `lab.router`, `lab.lb1`, `lab.a` ..."""

    def __init__(self, evenkeel, logs):
        self.evenkeel, self.logs = evenkeel, logs
        self.hosts = {}
        # In memory, gone with this mount namespace, and no overlay, on which hosts' overlays could not stand.
        self.scratch = Path("/mnt")
        run("mount", "-t", "tmpfs", "none", self.scratch)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge", "mcast_snooping", 0)
        run("ip", "link", "set", "lan", "up")
        self._client_and_router()
        for name, number in ADDRESSES.items():
            self.add_host(name, f"10.0.0.{number}", f"2001:db8::{number}")

    def _host(self, name):
        host = Host(name, self.logs, self.scratch)
        self.hosts[name] = host
        setattr(self, name, host)
        return host

    def add_host(self, name, ipv4, ipv6):
        """One more machine on the LAN, with the router as its way out."""
        host = self._host(name)
        host.ipv4, host.ipv6 = ipv4, ipv6
        run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", host.pid)
        run("ip", "link", "set", f"v-{name}", "master", "lan", "up")
        addressed(host, "eth0", f"{ipv4}/24", f"{ipv6}/64")
        host.run("ip", "route", "add", "default", "via", "10.0.0.1")
        host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::1")
        return host

    def _client_and_router(self):
        client, router = self._host("client"), self._host("router")
        client.ipv4, client.ipv6 = "198.18.0.2", "2001:db8:18::2"
        router.ipv4, router.ipv6 = "10.0.0.1", "2001:db8::1"
        router.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client.pid)
        run("ip", "link", "add", "v-router", "type", "veth", "peer", "name", "eth1", "netns", router.pid)
        run("ip", "link", "set", "v-router", "master", "lan", "up")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        addressed(router, "eth0", "198.18.0.1/16", "2001:db8:18::1/64")
        addressed(router, "eth1", "10.0.0.1/24", "2001:db8::1/64")
        addressed(client, "eth0", "198.18.0.2/16", "2001:db8:18::2/64")
        client.run("ip", "route", "add", "default", "via", "198.18.0.1")
        client.run("ip", "-6", "route", "add", "default", "via", "2001:db8:18::1")
        client.run("ip", "route", "add", "local", SOURCES_V4, "dev", "lo")
        client.run("ip", "-6", "route", "add", "local", SOURCES_V6, "dev", "lo")
        # By way of one neighbour: a thousand of them would fill the kernel's table, which all labs of
        # this machine share, and whoever asks for an address then is not answered.
        router.run("ip", "route", "add", SOURCES_V4, "via", "198.18.0.2")
        router.run("ip", "-6", "route", "add", SOURCES_V6, "via", "2001:db8:18::2")

    def serve(self, names=SERVERS, port=8080):
        """Servers that say who they are and for whom, and then echo; see server.py."""
        started = {name: self.hosts[name].start("server", sys.executable, ROOT / "scripts/ha/server.py", name, port)
                   for name in names}
        for name in names:
            self.until(f"server {name} listens", lambda name=name: listens(self.hosts[name], port))
        return started

    def balance(self, host, config=None):
        """evenkeel on `host`, with the text `config` or conf/ha/evenkeel.yaml; ready when this returns.

        The program is /usr/bin/evenkeel there, as on a real machine, the file /etc/evenkeel/evenkeel.yaml.
        """
        config = config or self.config(host)
        host.put("/etc/evenkeel/evenkeel.yaml", config)
        host.run("install", self.evenkeel, "/usr/bin/evenkeel")
        host.run("mkdir", "-p", "/run/evenkeel")
        daemon = host.start("evenkeel", "/usr/bin/evenkeel", "run")
        self.until(f"evenkeel on {host.name} is ready", lambda: host.succeeds("evenkeel", "status"))
        return daemon

    @staticmethod
    def config(host):
        """conf/ha/evenkeel.yaml as it is on `host`."""
        return (CONF / "evenkeel.yaml").read_text().replace("10.0.0.2:9900", f"{host.ipv4}:9900")

    def traffic(self, address, **options):
        """Clients that open and exchange, from now on; see traffic.Traffic for the options."""
        return Traffic(self, self.client, address, **options)

    def until(self, what, condition, seconds=10):
        """Waits for the condition, and returns how many seconds it took; Failed after `seconds`."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise Failed(f"waited {seconds} s in vain until {what}")
            time.sleep(0.02)
        return time.monotonic() - began

    @staticmethod
    def now():
        """Seconds of the clock that traffic is recorded with."""
        return time.monotonic()

    @staticmethod
    def run_for(seconds):
        """Lets traffic flow: how long is part of what a scenario does, and proves nothing."""
        time.sleep(seconds)


def run(*argv):
    """A program of the switch, which must succeed."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


def addressed(host, interface, *addresses):
    for address in addresses:
        host.run("ip", "address", "add", address, "dev", interface)
    host.run("ip", "link", "set", interface, "up")


def listens(host, port):
    return f":{port} " in host.run("ss", "-Hltn")
