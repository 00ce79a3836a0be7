"""A lab: hosts that are network namespaces, joined by media, removed at the end with every process on them.

    with lab() as net:
        a, b = net.host("a"), net.host("b")
        cable = net.cable(a, b)
        vpn = net.tunnel(a, b)
        verbs.cut(cable)

Names are of this process and this lab, so several run side by side; what a killed one left is swept by the next.
"""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lab import namespaces
from lab.media import Cable, Lan, Medium, Tunnel
from lab.relay import Shape

M = TypeVar("M", bound=Medium)

_COUNT = itertools.count()
# Of a network far away: the field report's VPN took 40 to 70 ms there and back.
FAR = Shape(delay_s=0.025)
# A shell's: becomes the program, on a machine called $0.
NAMED = 'echo "$0" > /proc/sys/kernel/hostname; exec "$@"'


@dataclass
class Host:
    """One "machine". `media` by the name of its interface here."""

    name: str
    namespace: str
    media: dict[str, Medium] = field(default_factory=dict)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        return [medium.addresses[self.namespace] for medium in self.media.values()]

    def address(self, medium: Medium) -> str:
        return medium.addresses[self.namespace]

    def interface(self, medium: Medium) -> str:
        return medium.interfaces[self.namespace]

    def command(self, words: Sequence[str]) -> list[str]:
        """With a /sys of its own, so that a process sees this host's interfaces there, and with a name of its own."""
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", NAMED, self.name, *words]

    def run(
        self, *words: str, environment: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(words),
            env=_environment(environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(
        self, *words: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        """Runs until it ends, is killed, or the lab is taken down. The pid is the program's own."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            process = subprocess.Popen(
                self.command(words),
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def pids(self) -> list[int]:
        """Everybody on it, also who was started by others than `start`."""
        return namespaces.pids(self.namespace)


def _named(hosts: Sequence[Host], interface: str | Sequence[str]) -> dict[str, str]:
    """By namespace: the name that all give to it, or that each does."""
    names = [interface] * len(hosts) if isinstance(interface, str) else interface
    return {host.namespace: name for host, name in zip(hosts, names, strict=True)}


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Nobody's settings of thunderline but those given here."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("THUNDERLINE_")}
    return {**ours, **(more or {})}


class Lab:
    """`proved_s`: how long a verb waits for its effect. A lost ARP request is sent again after 1 s, three times."""

    def __init__(self) -> None:
        self.proved_s = 15.0
        self._prefix = namespaces.prefix(next(_COUNT))
        self._room = f"{self._prefix}-patch"
        self._numbers = itertools.count(1)
        self.hosts: dict[str, Host] = {}
        self.media: list[Medium] = []

    def build(self) -> None:
        namespaces.sweep()
        namespaces.make(self._room)

    def host(self, name: str, ipv6: bool = False) -> Host:
        """`name`: small letters and digits."""
        host = Host(name, f"{self._prefix}-{name}")
        # Before it is there: half of one is removed as well.
        self.hosts[name] = host
        namespaces.make(host.namespace, ipv6)
        return host

    def cable(
        self, one: Host, other: Host, subnet: str = "192.168.4.0/24", interface: str | Sequence[str] = "cable0"
    ) -> Cable:
        """There and back in some 0.05 ms. `interface`: at both ends, or at each."""
        interfaces = _named((one, other), interface)
        return self._added(Cable(interfaces, subnet, self._room, next(self._numbers)), one, other)

    def lan(self, *hosts: Host, subnet: str = "10.0.0.0/24", interface: str | Sequence[str] = "lan0") -> Lan:
        return self._added(Lan(_named(hosts, interface), subnet, self._room, next(self._numbers)), *hosts)

    def tunnel(
        self, one: Host, other: Host, subnet: str = "100.64.0.0/24", interface: str = "vpn0", shape: Shape = FAR
    ) -> Tunnel:
        """By default 50 ms there and back."""
        return self._added(Tunnel(_named((one, other), interface), subnet, shape), one, other)

    def bridge(self, host: Host, medium: Medium, name: str) -> None:
        """The host's interface of the medium becomes a member of a new bridge."""
        del host.media[host.interface(medium)]
        medium.bridge(host.namespace, name)
        host.media[name] = medium

    def _added(self, medium: M, *hosts: Host) -> M:
        self.media.append(medium)
        for host in hosts:
            host.media[host.interface(medium)] = medium
        return medium

    def take_down(self) -> None:
        """Every process, by its pid; every relay; every namespace. Raises LabError, after having tried all."""
        faults = []
        # First those that we know: one may not have entered its namespace yet.
        for process in (process for host in self.hosts.values() for process in host.processes):
            process.kill()
            process.wait(namespaces.GONE_S)
        for medium in self.media:
            medium.close()
        for name in [*(host.namespace for host in self.hosts.values()), self._room]:
            try:
                if namespaces.exists(name):
                    namespaces.remove(name)
            except namespaces.LabError as error:
                faults.append(str(error))
        if faults:
            raise namespaces.LabError("; ".join(faults))


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    net = Lab()
    try:
        net.build()
        yield net
    finally:
        net.take_down()
