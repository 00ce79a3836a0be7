"""A Mac as its card tells of it, and what of it could not be found out. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from thunderline.cli.findings.finding import Finding, warning
from thunderline.cluster.addresses import is_address, is_ipv4
from thunderline.cluster.machine_facts import Bridge, MachineFacts, RdmaState, ScanWarning, ThunderboltPort
from thunderline.cluster.media import receptacle_of
from thunderline.process.macos import outputs

# Of one command; an output that is all nonsense has more.
WARNING_COUNT_MAX = 3
# What is not known when a command fails.
COSTS = {
    outputs.THUNDERBOLT: "which cables are plugged in, and how fast they are linked",
    outputs.HARDWARE_PORTS: "which interface belongs to which receptacle",
    outputs.SERVICE_ORDER: "which network service a bridge is",
    outputs.SERVICE_ENABLED: "whether the network service of a bridge is enabled",
    outputs.IFCONFIG: "which interfaces a bridge holds",
    outputs.RDMA_STATUS: "whether RDMA is enabled",
    outputs.RDMA_DEVICES: "which RDMA devices there are",
    outputs.RDMA_PORTS: "which RDMA ports are active",
    outputs.SYSTEM_VERSION: "which macOS runs",
    outputs.HARDWARE: "which model it is, and how much memory Metal may wire",
    outputs.POWER: "whether it goes to sleep, and starts after a power failure",
    outputs.FILEVAULT: "whether FileVault is on",
    outputs.MLX: "what its MLX offers",
}
RDMA_WORDS = {RdmaState.ENABLED: "enabled", RdmaState.DISABLED: "disabled", RdmaState.UNAVAILABLE: "no such command"}


@dataclass(frozen=True, slots=True)
class Mac:
    """One node. `node`: its id, "" where no role has ever started; `name`: "this node", or its host name."""

    node: str
    name: str
    facts: MachineFacts = field(default_factory=MachineFacts)
    # By interface, without those that are away.
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory_bytes: int = 0

    @property
    def cabled(self) -> tuple[ThunderboltPort, ...]:
        """The ports at which another Mac is seen."""
        return tuple(one for one in self.facts.ports if one.macs)

    @property
    def may_use_rdma(self) -> bool:
        """Whether nothing that is known rules it out for the whole node."""
        return self.facts.is_thunderbolt_5 is not False and self.facts.rdma is not RdmaState.UNAVAILABLE

    @property
    def thunderbolt_interfaces(self) -> frozenset[str]:
        """By the ports, and by what the system calls them: "Thunderbolt 3" is one, a dock's "Thunderbolt Ethernet Slot
        0" is none."""
        named = {name for name, port in self.facts.hardware_ports if receptacle_of(port)}
        return frozenset({one.interface for one in self.facts.ports if one.interface} | named)

    def bridge_of(self, interface: str) -> Bridge | None:
        """The one that holds it now. Its service may be off, but not the bridge: members are the kernel's, not the
        service's. One that is down holds nothing."""
        for one in self.facts.bridges:
            is_up = one.is_enabled is not False or one.interface in self.addresses
            if interface and interface in one.members and is_up:
                return one
        return None

    def ipv4(self, interface: str) -> list[str] | None:
        """None: nothing is told of that interface."""
        found = self.addresses.get(interface)
        return None if found is None else [one for one in found if is_address(one) and is_ipv4(one)]


def place(port: ThunderboltPort) -> str:
    """ "receptacle 3 (en4)"."""
    where = f"receptacle {port.receptacle}" if port.receptacle else port.bus
    return " ".join(filter(None, [where, f"({port.interface})" if port.interface else ""])) or "a port without a name"


def other_end(port: ThunderboltPort) -> str:
    """The Mac at the other end, as the port sees it: "MacBook Pro"."""
    return next((one.name or one.model for one in port.macs if one.name or one.model), "the other Mac")


def rdma_line(mac: Mac) -> str:
    return f"`{outputs.RDMA_STATUS}`: {RDMA_WORDS.get(mac.facts.rdma, 'not told')}"


def of_warnings(warnings: Iterable[ScanWarning]) -> list[Finding]:
    """One for each command."""
    by_command: dict[str, list[str]] = {}
    for one in warnings:
        by_command.setdefault(one.command, []).append(one.what)
    return [_of_command(command, told) for command, told in by_command.items()]


def _of_command(command: str, told: Sequence[str]) -> Finding:
    more = [f"{len(told) - WARNING_COUNT_MAX} more"] if len(told) > WARNING_COUNT_MAX else []
    shown = "; ".join([*told[:WARNING_COUNT_MAX], *more])
    # That of a service ends in the service's name.
    cost = next((cost for known, cost in COSTS.items() if command.startswith(known)), "")
    # What is no command of ours is not for copying.
    shows = f"`{command}` in a terminal shows" if cost else "`thunderline doctor` there shows"
    return warning(
        f"{command} did not tell all",
        "what it told neither now nor shortly before counts as unknown, and what needs it is not looked at",
        f"{shows} whether it answers now; a reboot ends one that hangs for ever",
        f"`{command}`: {shown}",
        cost or "what it would have told",
    )
