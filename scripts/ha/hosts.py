"""Hosts: network and mount namespaces that look like machines to the daemons in them.

A host has /run, /var, /etc, /usr/bin and /usr/local of its own (what it changes there nobody else sees, and it
is gone with the lab), interfaces eth0 and so on, and processes. A process that holds the namespaces
open stands for the machine. Knows nothing of balancers, traffic or scenarios.
"""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from ha.scenario import Failed

SETTINGS = {
    # Addresses count from the moment that they are there; a real network takes a second or two.
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.all.accept_ra": 0,
    "net.ipv4.tcp_congestion_control": "cubic",
}
# Folders that a host may write to as its own.
OWN_FOLDERS = ["/etc", "/var", "/usr/bin", "/usr/local"]
HOLD = "mount -t tmpfs none /run && mount -t sysfs none /sys && ip link set lo up && echo up && exec sleep infinity"


class Daemon:
    """A process of a host. Its output is in a log file; the end of the lab ends it, if nobody did."""

    def __init__(self, host, name, argv):
        self.log = host.logs / f"{host.name}-{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                host.inside(argv), stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        self.pid = self.process.pid

    def running(self):
        return self.process.poll() is None

    def kill(self, signal_number=signal.SIGKILL):
        """One signal to the process alone, kill -9 unless another is named; waits for the end of a kill -9."""
        os.kill(self.pid, signal_number)
        if signal_number == signal.SIGKILL:
            self.process.wait()

    def stop(self, seconds=10):
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def said(self):
        """Everything in its log so far."""
        return self.log.read_text(errors="replace")


class Host:
    """A machine of the lab. `ipv4` and `ipv6` are the addresses of eth0, without their lengths."""

    def __init__(self, name, logs, scratch):
        self.name, self.logs = name, logs
        self.ipv4 = self.ipv6 = None
        self._changes = scratch / name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", f"hostname {name} && {HOLD}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self._holder.stdout.readline() != b"up\n":
            raise Failed(f"no host {name} can be made here")
        self.run("sysctl", "-qw", *(f"{key}={value}" for key, value in SETTINGS.items()))
        for folder in OWN_FOLDERS:
            upper, work = (self._changes / folder[1:] / part for part in ["changes", "work"])
            upper.mkdir(parents=True)
            work.mkdir()
            self.run("mount", "-t", "overlay", "overlay", "-o",
                     f"lowerdir={folder},upperdir={upper},workdir={work}", folder)

    def inside(self, argv):
        """The command line that runs `argv` in this host; nsenter becomes it, with the same pid."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--uts", "--",
                *map(str, argv)]

    def run(self, *argv, check=True, said=None, seconds=30):
        """Output of a program that ends, `said` being its input; Failed where it fails and `check`."""
        done = subprocess.run(self.inside(argv), input=said or "", capture_output=True, text=True, timeout=seconds)
        if check and done.returncode:
            raise Failed(f"{self.name}: {' '.join(map(str, argv))}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def succeeds(self, *argv):
        """Whether a program ends with 0."""
        return subprocess.run(self.inside(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0

    def start(self, name, *argv):
        """A Daemon, in the foreground; `name` is for its log."""
        return Daemon(self, name, argv)

    def put(self, path, content, mode=0o644):
        """Writes the file `path` of this host: `content` is a Path to copy from, or text."""
        text = content.read_text() if isinstance(content, Path) else content
        self.run("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, said=text)

    def link(self, state):
        """'down' is the cable out, seen from the network; the host sees its carrier go. 'up' again."""
        subprocess.run(["ip", "link", "set", f"v-{self.name}", state], check=True)

    def end(self):
        """Ends the host's processes that nobody waits for; the namespaces end with the lab."""
        with contextlib.suppress(ProcessLookupError):
            self._holder.kill()

    @property
    def pid(self):
        """A process in the host's namespaces, for whoever moves an interface there."""
        return self._holder.pid
