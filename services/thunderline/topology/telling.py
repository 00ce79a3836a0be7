"""The topology as callers see it: interfaces, links in their order with the reason, every try, cables. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph, Tried
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.links import Link, LinkId, link_key
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.rails import PortAt, speed_of
from thunderline.process.interfaces import Interface
from thunderline.rpc import graph as graphs
from thunderline.rpc import rails
from thunderline.topology import wire, wording
from thunderline.topology.knowledge import Knowledge, Pair
from thunderline.topology.ports import NOTHING_TOLD, Ports, Told, ports_of
from thunderline.v1 import cluster_pb2, topology_pb2

# The response around a topology has a few bytes.
TOPOLOGY_BYTES_MAX = DEFAULTS.message_bytes_max - 1024
# What is left out of one that would have more, in this order: the part, and what stays of what nodes see of each other.
LEFT_OUT: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    # Of the others the link says the same.
    ("attempts", lambda one: one.outcome != topology_pb2.PROBE_OUTCOME_ANSWERED),
    ("attempts", lambda one: False),
    ("links", lambda one: one.chosen),
    ("links", lambda one: False),
)

# All that the links of one pair of nodes are told from.
Grounds = tuple[tuple[Link, ...], LinkId | None, tuple[Tried, ...]]


class Teller:
    """Keeps what it made: a change touches few pairs, and every change is told to several watchers."""

    def __init__(self) -> None:
        self._links: dict[Pair, tuple[Grounds, list[topology_pb2.Link]]] = {}
        self._owners: Mapping[tuple[NodeId, str], str] = {}
        self._told_ports: Told = ()
        self._ports = NOTHING_TOLD
        self._attempts: dict[LinkId, tuple[Tried, topology_pb2.AddressAttempt]] = {}

    def topology(
        self,
        knowledge: Knowledge,
        interfaces: Iterable[Interface],
        tried_at_s: Mapping[tuple[NodeId, str], float],
        complete: bool,
    ) -> topology_pb2.Topology:
        """`tried_at_s`: of own rows, by peer and address, of the wall clock."""
        graph, node = knowledge.graph, knowledge.node
        self._look_up(knowledge)
        told = topology_pb2.Topology(
            node_id=node,
            interfaces=[interface_to_proto(one) for one in interfaces],
            links=self._all_links(knowledge),
            complete=complete,
            attempts=self._all_attempts(graph, node, tried_at_s),
            cables=_cables(knowledge, self._ports),
            incomplete_node_ids=graph.incomplete,
            version=wire.version_to_proto(knowledge.version),
            rails=[rails.to_proto(one) for one in graph.rails],
        )
        return abridged(told)

    def _look_up(self, knowledge: Knowledge) -> None:
        """What the sentences of every link may need."""
        owners, told_ports = knowledge.members.owners, knowledge.graph.ports
        if (owners, told_ports) != (self._owners, self._told_ports):
            self._links, self._owners, self._told_ports = {}, owners, told_ports
            self._ports = ports_of(told_ports)

    def _all_links(self, knowledge: Knowledge) -> list[topology_pb2.Link]:
        tries: dict[Pair, list[Tried]] = {}
        for one in knowledge.graph.tried:
            tries.setdefault((one.from_node, one.to_node), []).append(one)
        kept, self._links = self._links, {}
        for pair, links in sorted(knowledge.by_pair.items()):
            back = tuple(tries.get((pair[1], pair[0]), ()))
            grounds = (links, knowledge.chosen.get(pair), back)
            known = kept.get(pair)
            made = known[1] if known is not None and known[0] == grounds else self._pair(*grounds)
            self._links[pair] = grounds, made
        return [link for _, made in self._links.values() for link in made]

    def _all_attempts(
        self, graph: Graph, node: NodeId, tried_at_s: Mapping[tuple[NodeId, str], float]
    ) -> list[topology_pb2.AddressAttempt]:
        kept, self._attempts = self._attempts, {}
        for one in graph.tried:
            known = kept.get(one.id)
            # A report that did not change still has the very same ones.
            made = known[1] if known is not None and known[0] is one else _attempt(one)
            if one.from_node == node and (at_s := tried_at_s.get((one.to_node, one.address))) is not None:
                made.tried_at.FromMilliseconds(int(at_s * 1000))
            self._attempts[one.id] = one, made
        return [made for _, made in self._attempts.values()]

    def _pair(self, links: tuple[Link, ...], chosen: LinkId | None, back: tuple[Tried, ...]) -> list[topology_pb2.Link]:
        """The best first."""
        ordered = sorted(links, key=link_key)
        return [
            link_to_proto(one, chosen, wording.why(one, links, chosen, self._owners, back), cable_of(one, self._ports))
            for one in ordered
        ]


def chosen(knowledge: Knowledge, complete: bool) -> topology_pb2.Topology:
    """What connections from here need. Nothing in it changes with an RTT."""
    node, own = knowledge.node, (one for one in knowledge.chosen.values() if one.from_node == knowledge.node)
    links = [
        topology_pb2.Link(from_node_id=node, to_node_id=one.to_node, peer_address=one.address, chosen=True)
        for one in sorted(own)
    ]
    return topology_pb2.Topology(
        node_id=node, links=links, complete=complete, incomplete_node_ids=knowledge.graph.incomplete
    )


def abridged(told: topology_pb2.Topology, bytes_max: int = TOPOLOGY_BYTES_MAX) -> topology_pb2.Topology:
    """Within what gRPC carries: links and tries grow by the square of the nodes. What its own node sees stays."""
    for part, stays in LEFT_OUT:
        if told.ByteSize() <= bytes_max:
            break
        every = getattr(told, part)
        kept = [one for one in every if told.node_id in (one.from_node_id, one.to_node_id) or stays(one)]
        told.abridged |= len(kept) < len(every)
        told.ClearField(part)  # type: ignore[arg-type]
        getattr(told, part).extend(kept)
    return told


def interface_to_proto(one: Interface) -> cluster_pb2.NetworkInterface:
    return cluster_pb2.NetworkInterface(
        name=one.name,
        medium=one.medium.value,  # type: ignore[arg-type]
        addresses=one.addresses,
        is_up=one.is_up,
        mtu_bytes=one.mtu_bytes,
    )


def link_to_proto(
    link: Link, chosen: LinkId | None, why: str, cable: topology_pb2.LinkCable | None = None
) -> topology_pb2.Link:
    told = graphs.link_to_proto(link)
    told.chosen, told.why = link.id == chosen, why
    if cable is not None:
        told.cable.CopyFrom(cable)
    return told


def cable_of(link: Link, ports: Ports) -> topology_pb2.LinkCable | None:
    """None where no port tells of it, or what they tell cannot be."""
    mine, theirs = ports.passed(link)
    told = [port for port in (mine, theirs) if port is not None]
    # Who tells of its ports, and of none that the link passes, has no end of a cable there.
    is_elsewhere = (mine is None and link.from_node in ports.nodes) or (theirs is None and link.to_node in ports.nodes)
    if not told or is_elsewhere or ports.contradict(link, mine, theirs):
        return None
    known = None
    if mine is not None and theirs is not None:
        known = ports.cable(PortAt(link.from_node, mine), PortAt(link.to_node, theirs))
    if known is None:
        # A node without UUIDs, or without ports: packets pass there, so what the port sees is the other end.
        behind = _hubs(mine) or _hubs(theirs)[::-1]
    else:
        behind = known.behind if known.one.node == link.from_node else known.behind[::-1]
    return topology_pb2.LinkCable(
        local_receptacle=mine.receptacle if mine else "",
        peer_receptacle=theirs.receptacle if theirs else "",
        speed_gbps=speed_of(*told),
        behind=behind,
        # Without UUIDs nobody can tell that they see each other.
        one_sided=known is None or known.is_one_sided,
        hub_unknown=not behind and any(port.devices for port in told),
    )


def _hubs(port: ThunderboltPort | None) -> tuple[str, ...]:
    """Before the only Mac that it sees; of several nobody can tell which it is."""
    return port.macs[0].behind if port is not None and len(port.macs) == 1 else ()


def _attempt(one: Tried) -> topology_pb2.AddressAttempt:
    told = graphs.tried_to_proto(one)
    told.sentence = wording.attempt(one)
    return told


def _cables(knowledge: Knowledge, ports: Ports) -> list[topology_pb2.Cable]:
    graph, found = knowledge.graph, []
    for one in graph.cables:
        told = graphs.cable_to_proto(one)
        if one in graph.lost_cables:
            told.lost = True
            told.sentence = wording.cable_lost(one, graph.links, knowledge.members.names, ports)
        found.append(told)
    return found
