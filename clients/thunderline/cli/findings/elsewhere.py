"""What is said of the other nodes by what this one knows: their cards, and the graph of all. Pure."""

from dataclasses import replace

from thunderline.cli.findings import links, roster
from thunderline.cli.findings.finding import Finding, Severity, joined, note
from thunderline.v1 import discovery_pb2, topology_pb2

# As sys.platform has it.
MAC = "darwin"


def of_others(
    known: discovery_pb2.Roster, graph: topology_pb2.Topology | None, now_s: float, log: str
) -> list[Finding]:
    """`log`: of this node's topology."""
    peers = dict(sorted(roster.peers(known).items(), key=lambda one: (one[1], one[0])))
    if not peers:
        return []
    found = [] if graph is None else _links(known, graph, peers, now_s, log)
    silent = [
        one.card.node_id
        for one in known.members
        if one.card.operating_system.startswith(MAC) and not one.card.HasField("machine")
    ]
    for node, name in peers.items():
        if node in silent:
            why = "its card tells nothing of it: it has just started, or is of an older version"
            found.append(replace(note("its hardware is not known", why), node=name))
    why = f"`thunderline doctor` on {joined(list(peers.values()))} looks at those"
    return [*found, note("no card tells of disks, memory, files, ports, logs and Local Network privacy", why)]


def _links(
    known: discovery_pb2.Roster, graph: topology_pb2.Topology, peers: dict[str, str], now_s: float, log: str
) -> list[Finding]:
    """Of each pair of the others once: what is wrong with it. That of this node and another is told elsewhere."""
    found, left = [], dict(peers)
    alive_s, ports = roster.alive_s(known, now_s), roster.ports(known, "echo")
    for node, name in peers.items():
        del left[node]
        told = links.of_links(graph, links.Peers(dict(left), alive_s, ports), log, links.Node(node, name))
        found += [replace(one, node=name) for one in told if one.severity is not Severity.NOTE]
    return found
