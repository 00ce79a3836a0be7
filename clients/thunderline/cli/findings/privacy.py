"""Local Network privacy of macOS 15 and newer: whether the system keeps this node's topology from its neighbours. Pure.

Apple's TN3179: apps, launch agents and their children need a person's permission; daemons of launchd, root, and what is
started from Terminal or by SSH do not. A connection that is not permitted ends with errno 65 at once, while ping and
the router answer. Doctor itself is mostly started from Terminal: what it reaches and topology does not is near a proof.
"""

import errno as errnos
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from thunderline.cli.findings.finding import Finding, joined, warning, wrong
from thunderline.cluster.addresses import is_address, is_ipv4, is_private, is_vpn, parse
from thunderline.cluster.links import LinkState
from thunderline.v1 import topology_pb2

# EHOSTUNREACH of macOS, and of what stands in for it in tests.
UNREACHABLE = {65, errnos.EHOSTUNREACH}
# That a machine is away shows only after a second or more of ARP.
AT_ONCE_S = 0.2
# So many are tried from here.
ADDRESS_COUNT_MAX = 3
UNTRIED = topology_pb2.PROBE_OUTCOME_UNTRIED


@dataclass(frozen=True, slots=True)
class Dial:
    """A TCP connection from here. `errno`: 0 when it was taken, ETIMEDOUT when nothing was said in our time."""

    errno: int
    took_s: float

    @property
    def is_answered(self) -> bool:
        """A refusal is an answer too."""
        return self.errno in (0, errnos.ECONNREFUSED)

    @property
    def is_kept_away(self) -> bool:
        return self.errno in UNREACHABLE and self.took_s < AT_ONCE_S


@dataclass(frozen=True, slots=True)
class Router:
    """Of `route -n get default`. `address`: "" where there is none; `answers`: it took or refused a connection."""

    address: str = ""
    answers: bool = False


def suspects(topology: topology_pb2.Topology, alive: Collection[str]) -> list[tuple[str, str]]:
    """Some of (peer's node_id, address) when this node's tries of its neighbourhood all end in errno 65; else none.

    One that answers, refuses or is silent shows that packets leave. `alive`: peers that are not, may be switched off.
    """
    tried = [
        one
        for one in topology.attempts
        if one.from_node_id == topology.node_id and one.outcome != UNTRIED and is_local(one.address)
    ]
    if not all(one.errno in UNREACHABLE for one in tried):
        return []
    return [(one.to_node_id, one.address) for one in tried if one.to_node_id in alive][:ADDRESS_COUNT_MAX]


def is_local(address: str) -> bool:
    """Of a network that this machine may be in itself, as far as an address tells."""
    if not is_address(address) or not is_ipv4(address) or is_vpn(address):
        return False
    return is_private(address) or parse(address).is_link_local


def of_privacy(topology: topology_pb2.Topology, dials: Mapping[str, Dial], router: Router) -> list[Finding]:
    """`dials`: the suspects' addresses, dialled from here just now."""
    reached = [address for address, one in dials.items() if one.is_answered]
    kept_away = [address for address, one in dials.items() if one.is_kept_away]
    if not reached and not (kept_away and router.answers):
        return []
    shown = joined(reached or kept_away)
    seen = f"topology: {shown}: errno 65 (EHOSTUNREACH)"
    if reached:
        seen += "; `thunderline doctor` reaches it from here just now"
        why, unknown = "something that this shell may do is not permitted to topology, or was not until now", ""
    else:
        took_ms = max(dials[address].took_s for address in kept_away) * 1000
        seen += f", from here within {took_ms:.0f} ms; `route -n get default`: gateway: {router.address}, which answers"
        why = "a machine that is away is found out after a second or more; so fast only the system itself says no"
        unknown = (
            f"whether these machines are away all the same: `ping -c 1 {kept_away[0]}` tells, nothing restricts it"
        )
    here = topology.node_id
    is_joined = any(one.from_node_id == here and one.state != LinkState.DOWN.value for one in topology.links)
    return [
        (warning if is_joined else wrong)(
            "Local Network privacy keeps topology from its neighbours",
            f"{why}: macOS asks a person before a program may reach the local network, Thunderbolt cables among it",
            "start thunderline where nobody is asked: `thunderline up` in Terminal or by SSH, or a daemon of launchd; "
            "else allow it in System Settings > Privacy & Security > Local Network (after a reboot off and on again)",
            seen,
            unknown,
        )
    ]
