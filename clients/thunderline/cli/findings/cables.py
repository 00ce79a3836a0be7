"""What is wrong with the cables between Macs, as the ports of both ends tell. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from thunderline.cli.findings import rdma
from thunderline.cli.findings.finding import Finding, joined, note, warning
from thunderline.cli.findings.macs import RDMA_WORDS, Mac, other_end, place
from thunderline.cli.findings.ports import is_next_to_ethernet
from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import TB4_GBPS, RdmaPortState, RdmaState, ThunderboltPort
from thunderline.cluster.rails import plugged_cables
from thunderline.process.macos import outputs

# What two ports of Thunderbolt 5 agree on, with a cable that is made for it.
TB5_GBPS = 80


@dataclass(frozen=True, slots=True)
class End:
    mac: Mac
    port: ThunderboltPort

    @property
    def place(self) -> str:
        return f"{place(self.port)} of {self.mac.name}"

    @property
    def has_rdma(self) -> bool:
        return self.mac.facts.rdma is RdmaState.ENABLED and self.mac.facts.is_thunderbolt_5 is not False


@dataclass(frozen=True, slots=True)
class Cable:
    """Between two Macs that are known. `behind`: hubs and docks between; 0 Gb/s: neither end tells."""

    ends: tuple[End, End]
    speed_gbps: int = 0
    behind: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        return joined([end.mac.name for end in self.ends])

    def touches(self, node: str) -> bool:
        return node in [end.mac.node for end in self.ends]

    @property
    def may_have_rdma(self) -> bool:
        return all(end.mac.may_use_rdma for end in self.ends)


def cables(macs: Iterable[Mac]) -> list[Cable]:
    by_node = {NodeId(one.node): one for one in macs}
    plugged = plugged_cables({node: mac.facts.ports for node, mac in by_node.items()})
    return [
        Cable(
            (End(by_node[one.one.node], one.one.port), End(by_node[one.other.node], one.other.port)),
            one.speed_gbps,
            one.behind,
        )
        for one in plugged
    ]


def of_cables(found: Iterable[Cable], about: str | None = None) -> list[Finding]:
    """`about`: only of that node's cables, whose own RDMA has been told of already."""
    own = [one for one in found if about is None or one.touches(about)]
    told = [finding for one in own for finding in (*_of_one_end(one, about), *_of_speed(one), *_of_hubs(one))]
    # Of a shared port there are several cables.
    ends = {(end.mac.node, end.port): end for one in own for end in one.ends}
    return [*told, *(finding for end in ends.values() for finding in _of_shared_port(end))]


def _of_one_end(cable: Cable, about: str | None) -> Iterable[Finding]:
    """RDMA is enabled on one of its Macs only."""
    on, off = sorted(cable.ends, key=lambda end: not end.has_rdma)
    if not on.has_rdma or off.has_rdma:
        return
    there, word = off.mac.name, RDMA_WORDS.get(off.mac.facts.rdma, "not told")
    seen = f"`{outputs.RDMA_STATUS}`: enabled on {on.mac.name}, {word} on {there}"
    if off.mac.facts.is_thunderbolt_5 is False:
        why = f"{there} has no Thunderbolt 5; the ring over TCP works, and there is nothing to do"
        yield note(f"no RDMA over the cable between {cable.names}", why, seen)
        return
    advice = rdma.of_mac(off.mac)
    is_told = off.mac.node == about and bool(off.port.macs) and advice.step is not rdma.Step.FIND_OUT
    if off.mac.facts.rdma is not RdmaState.UNKNOWN and not is_told:
        yield warning(
            f"RDMA is enabled on {on.mac.name}, and not on {there} at the other end of a cable",
            f"a cable carries RDMA once both ends have it; until then the ring over TCP, at {on.place}",
            f"on {there}: {rdma.REMEDIES[advice.step]}",
            seen,
            joined([f"{one.value} on {there}" for one in advice.unknown]),
        )


def _of_speed(cable: Cable) -> Iterable[Finding]:
    """Thunderbolt 5 at both ends, linked as Thunderbolt 4."""
    both = all(end.mac.facts.is_thunderbolt_5 for end in cable.ends)
    if not both or not 0 < cable.speed_gbps <= TB4_GBPS:
        return
    docks = joined(cable.behind)
    slower = f"; {docks} between them may be of Thunderbolt 4 or older" if docks else ""
    yield warning(
        f"the cable between {cable.names} is slower than their ports: {cable.speed_gbps} Gb/s",
        f"both have Thunderbolt 5, which links at {TB5_GBPS} Gb/s{slower}",
        f"while nothing is served over it{_unbridged(cable.ends)}, plug in a cable made for Thunderbolt 5 (its plugs "
        f"show a 5), without a dock between; `{outputs.THUNDERBOLT}` then shows {TB5_GBPS} Gb/s",
        f"`{outputs.THUNDERBOLT}`: {cable.speed_gbps} Gb/s, {joined([end.place for end in cable.ends])}",
        f"whether it is the cable or {docks}" if docks else "whether it is the cable or a dock that neither end shows",
    )


def _of_hubs(cable: Cable) -> Iterable[Finding]:
    """A chain of them, of which somebody has reported that macOS crashes; nobody has confirmed it."""
    if len(cable.behind) < 2:
        return
    yield warning(
        f"{len(cable.behind)} hubs in a chain between {cable.names}: {joined(cable.behind)}",
        "with two hubs in a chain macOS has crashed (kernel panics in AppleThunderboltIPConnection)",
        f"while nothing is served over it{_unbridged(cable.ends)}, plug in a direct cable, or leave one hub between; "
        f"`{outputs.THUNDERBOLT}` then shows one at most",
        f"`{outputs.THUNDERBOLT}`: {joined(cable.behind)} between {joined([end.place for end in cable.ends])}",
        "whether it happens here: it is a report from the field that was not confirmed",
    )


def _of_shared_port(end: End) -> Iterable[Finding]:
    """Several Macs behind one hub or dock, which has gone wrong with one kind of it."""
    macs = end.port.macs
    if len(macs) < 2:
        return
    hubs = joined(list(dict.fromkeys(hub for one in macs for hub in one.behind[:1]))) or "one hub"
    yield note(
        f"{len(macs)} Macs share {hubs} at {end.place}",
        "they share the speed of one port, and a dock with two Macs has crashed macOS (CalDigit TS5); a direct cable "
        "to each does without it",
        f"`{outputs.THUNDERBOLT}`: {joined([one.name or one.model or 'a Mac' for one in macs])} at {end.place}",
        "whether it happens with this one: it is a report from the field that was not confirmed",
    )


def _unbridged(ends: Sequence[End]) -> str:
    """A cable that is plugged in anew under a bridge spoils RDMA until a reboot."""
    held = [(end, bridge) for end in ends if (bridge := end.mac.bridge_of(end.port.interface))]
    if not held:
        return ""
    out = joined([f"{end.port.interface} of {end.mac.name} out of {bridge.interface}" for end, bridge in held])
    return f", and with {out} (under a bridge that spoils RDMA until a reboot)"


def of_down_ports(mac: Mac, found: Iterable[Cable]) -> list[Finding]:
    """Of one Mac: RDMA ports that are down, though a Mac is plugged in that has RDMA too, as far as is known, and
    neither end is the port next to Ethernet."""
    told = []
    for port in mac.cabled:
        here = End(mac, port)
        if not here.has_rdma:
            continue
        peers = [end for one in found if here in one.ends for end in one.ends if end != here]
        is_explained = bool(peers) and not any(_may_answer(end) for end in peers)
        if port.rdma_port is RdmaPortState.DOWN and not is_explained and not is_next_to_ethernet(mac, port):
            told.append(_of_down_port(here, peers))
    return told


def _may_answer(end: End) -> bool:
    has_rdma = end.mac.facts.rdma in (RdmaState.ENABLED, RdmaState.UNKNOWN)
    return has_rdma and end.mac.may_use_rdma and not is_next_to_ethernet(end.mac, end.port)


def _of_down_port(here: End, peers: Sequence[End]) -> Finding:
    port = here.port
    is_sure = any(one.mac.facts.rdma is RdmaState.ENABLED for one in peers)
    name, device = joined([one.mac.name for one in peers]) or other_end(port), port.rdma_device or place(port)
    both = "; both ends say that RDMA is enabled" if is_sure else ""
    return warning(
        f"{device} is down, and a cable is in",
        f"no RDMA over the cable to {name}{both}",
        f"end what uses the cable (pulled out under load it can crash macOS){_unbridged([here, *peers])}, pull it "
        f"out, wait 10 s, plug it in; when `{outputs.RDMA_PORTS}` shows no PORT_ACTIVE then, reboot both Macs",
        f"`{outputs.RDMA_PORTS}`: hca_id: {device}, state: PORT_DOWN",
        "" if is_sure else f"whether RDMA is enabled on {name}: `thunderline doctor` there",
    )


def of_builds(macs: Sequence[Mac], found: Iterable[Cable], about: str | None = None) -> list[Finding]:
    """Different systems within one group of Macs that RDMA may join. `about`: only the group of that node."""
    told = []
    for group in groups(macs, found):
        if about is not None and about not in [one.node for one in group]:
            continue
        by_build: dict[str, list[str]] = {}
        for one in group:
            by_build.setdefault(one.facts.os_build, []).append(one.name)
        silent = joined(by_build.pop("", []))
        if len(by_build) > 1:
            each = joined([f"BuildVersion {build} on {joined(names)}" for build, names in sorted(by_build.items())])
            told.append(
                warning(
                    f"different builds of macOS where RDMA may join {joined([one.name for one in group])}",
                    "RDMA is known to fail between different builds, be they two betas of one version",
                    f"update all to the same: `softwareupdate --list` on each; `{outputs.SYSTEM_VERSION}` tells both",
                    f"`{outputs.SYSTEM_VERSION}`: {each}",
                    f"which build runs on {silent}" if silent else "",
                )
            )
    return told


def groups(macs: Sequence[Mac], found: Iterable[Cable]) -> list[list[Mac]]:
    """Macs that are joined by cables that may carry RDMA, one after the other; who is alone is left out."""
    by_node: Mapping[str, Mac] = {one.node: one for one in macs}
    group_of = {node: frozenset([node]) for node in by_node}
    for one in found:
        if one.may_have_rdma:
            first, second = (group_of[end.mac.node] for end in one.ends)
            merged = first | second
            group_of |= dict.fromkeys(merged, merged)
    different = [one for one in dict.fromkeys(group_of.values()) if len(one) > 1]
    return [[mac for node, mac in by_node.items() if node in one] for one in different]
