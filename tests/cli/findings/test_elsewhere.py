"""The other nodes, by what this one knows of them."""

from cli.findings.laws import NOTE, WARNING, WRONG, short
from thunderline.cli.findings.elsewhere import of_others
from thunderline.cli.findings.finding import Finding
from thunderline.v1 import cluster_pb2, discovery_pb2, topology_pb2

ME, BOB, CLEO, DORA = "me", "node-bob", "node-cleo", "node-dora"
ALIVE, DEAD = discovery_pb2.MEMBER_STATE_ALIVE, discovery_pb2.MEMBER_STATE_DEAD
UNSEEN = "no card tells of disks, memory, files, ports, logs and Local Network privacy"
NOW_S = 1_800_000_000.0


def member(
    node: str, system: str = "linux 6.1", state: "discovery_pb2.MemberState.ValueType" = ALIVE
) -> discovery_pb2.Member:
    card = cluster_pb2.NodeCard(node_id=node, hostname=node.removeprefix("node-"), operating_system=system)
    return discovery_pb2.Member(card=card, state=state)


def link(one: str, other: str, **more: object) -> list[topology_pb2.Link]:
    ends = [(one, other), (other, one)]
    fields = {"medium": cluster_pb2.MEDIUM_ETHERNET, "state": topology_pb2.LINK_STATE_UP, "rtt_us": 300, **more}
    return [topology_pb2.Link(from_node_id=a, to_node_id=b, peer_address="10.0.0.9", **fields) for a, b in ends]  # type: ignore[arg-type]


def told(*members: discovery_pb2.Member, graph: topology_pb2.Topology | None = None) -> list[Finding]:
    known = discovery_pb2.Roster(node_id=ME, members=[member(ME), *members], complete=True)
    return of_others(known, graph, NOW_S, "/h/logs/topology.log")


def test_a_node_by_itself_has_no_others() -> None:
    assert told() == []
    assert told(member(BOB, state=DEAD)) == []


def test_what_no_card_tells_is_said_once() -> None:
    found = told(member(CLEO), member(BOB))
    assert short(found) == [(NOTE, UNSEEN)]
    assert found[0].why == "`thunderline doctor` on bob and cleo looks at those"


def test_links_of_others_are_told_once_a_pair_and_only_what_is_wrong() -> None:
    vpn = cluster_pb2.MEDIUM_VPN
    links = [
        *link(BOB, CLEO, medium=vpn, rtt_us=50_000),
        *link(BOB, DORA),
        *link(ME, BOB, medium=vpn),
        *link(ME, CLEO),
        *link(ME, DORA),
    ]
    graph = topology_pb2.Topology(node_id=ME, complete=True, links=links)
    found = told(member(DORA), member(CLEO), member(BOB), graph=graph)
    assert [(one.node, severity, what) for one, (severity, what) in zip(found, short(found), strict=True)] == [
        ("bob", WARNING, "only a VPN joins bob and cleo"),
        ("cleo", WRONG, "no link joins cleo and dora"),
        ("", NOTE, UNSEEN),
    ]


def test_a_cable_that_others_have_lost_is_told() -> None:
    ends = [
        topology_pb2.CableEnd(node_id=BOB, interface="en3", receptacle="2"),
        topology_pb2.CableEnd(node_id=CLEO, interface="en6", receptacle="5"),
    ]
    cable = topology_pb2.Cable(one=ends[0], other=ends[1], lost=True, sentence="CABLE_LOST: it is gone. Plug it in")
    graph = topology_pb2.Topology(node_id=ME, complete=True, links=link(BOB, CLEO), cables=[cable])
    found = told(member(BOB), member(CLEO), graph=graph)
    assert short(found)[0] == (WARNING, "CABLE_LOST between en3 (receptacle 2) of bob and en6 (receptacle 5) of cleo")
    assert found[0].node == "bob"


def test_a_mac_that_tells_nothing_of_its_hardware_is_named() -> None:
    tells = member(CLEO, "darwin 25.2.0")
    tells.card.machine.model = "Mac16,11"
    found = told(member(BOB, "darwin 25.2.0"), tells, member(DORA))
    assert [(one.node, one.what) for one in found] == [("bob", "its hardware is not known"), ("", UNSEEN)]
