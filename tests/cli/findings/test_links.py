"""Links between this node and its peers: what is said of each way in which one is not as it should be."""

import pytest

from cli.findings.laws import NOTE, WARNING, WRONG, only, short, troubles
from thunderline.cli.findings.finding import Finding
from thunderline.cli.findings.links import Node, Peers, of_links
from thunderline.v1 import cluster_pb2, topology_pb2

ME, BOB = "me", "node-bob"
UP, DEGRADED, DOWN = topology_pb2.LINK_STATE_UP, topology_pb2.LINK_STATE_DEGRADED, topology_pb2.LINK_STATE_DOWN
CABLE, VPN, ETHERNET = cluster_pb2.MEDIUM_THUNDERBOLT, cluster_pb2.MEDIUM_VPN, cluster_pb2.MEDIUM_ETHERNET
LOG = "/h/logs/topology.log"
PORTS = {BOB: 7412, ME: 7499}
PEERS, NOBODY = Peers({BOB: "bob"}, {BOB: 9.0}, PORTS), Peers({}, {}, PORTS)


def link(
    out: bool = True,
    medium: "cluster_pb2.Medium.ValueType" = CABLE,
    state: "topology_pb2.LinkState.ValueType" = UP,
    rtt_us: int = 300,
    **more: object,
) -> topology_pb2.Link:
    ends = {"from_node_id": ME, "to_node_id": BOB} if out else {"from_node_id": BOB, "to_node_id": ME}
    address = "192.168.4.2" if out else "192.168.4.1"
    fields = {**ends, "peer_address": address, "medium": medium, "counts_as": medium, "state": state, **more}
    return topology_pb2.Link(rtt_us=rtt_us, **fields)  # type: ignore[arg-type]


def back(**more: object) -> topology_pb2.Link:
    return link(False, **more)  # type: ignore[arg-type]


def attempt(out: bool, address: str, sentence: str) -> topology_pb2.AddressAttempt:
    ends = (ME, BOB) if out else (BOB, ME)
    return topology_pb2.AddressAttempt(
        from_node_id=ends[0], to_node_id=ends[1], address=address, errno=113, sentence=sentence
    )


def topology(*links: topology_pb2.Link, **more: object) -> topology_pb2.Topology:
    return topology_pb2.Topology(node_id=ME, complete=True, links=links, **more)  # type: ignore[arg-type]


def found(*links: topology_pb2.Link, **more: object) -> list[Finding]:
    return of_links(topology(*links, **more), PEERS, LOG)


def test_a_good_link_is_shown() -> None:
    one = only(found(link(chosen=True), back(chosen=True)))
    assert (one.severity.value, one.what, one.why) == (NOTE, "link to bob", "THUNDERBOLT, 0.3 ms by 192.168.4.2")


def test_without_peers_there_is_nothing_to_say() -> None:
    assert of_links(topology(), NOBODY, LOG) == []


def test_who_is_not_alive_lacks_no_link() -> None:
    assert of_links(topology(link(state=DOWN)), NOBODY, LOG) == []


NO_WAY = "no way there (EHOSTUNREACH)"
PAIRS = {
    "no link": (
        topology(attempts=[attempt(True, "10.0.0.2", NO_WAY)]),
        WRONG,
        "no link joins this node and bob",
        f"10.0.0.2: {NO_WAY}",
        "TCP port 7412 (its echo) in at the firewall of bob",
    ),
    "no address": (
        topology(),
        WRONG,
        "no link joins this node and bob",
        "knows no address of bob",
        "thunderline links --all",
    ),
    "all DOWN": (
        topology(link(state=DOWN), back(state=DOWN), attempts=[attempt(True, "10.0.0.2", "no answer (ETIMEDOUT)")]),
        WRONG,
        "no link joins this node and bob",
        "ETIMEDOUT",
        "thunderline links --all",
    ),
    "only there": (
        topology(link(), attempts=[attempt(False, "192.168.4.1", "no answer (ETIMEDOUT)")]),
        WARNING,
        "one direction only: this node reaches bob, and bob does not reach this node",
        "192.168.4.1: no answer (ETIMEDOUT)",
        "TCP port 7499 (its echo) in at the firewall of this node",
    ),
    "only back": (
        topology(back(), attempts=[attempt(True, "192.168.4.2", "no answer (ETIMEDOUT)")]),
        WARNING,
        "one direction only: bob reaches this node, and this node does not reach bob",
        "192.168.4.2: no answer",
        "firewall of bob",
    ),
    "only a VPN": (
        topology(link(medium=VPN, rtt_us=51_000), back(medium=VPN)),
        WARNING,
        "only a VPN joins this node and bob",
        "at a fraction of their speed",
        "plug in a cable",
    ),
    "a VPN there, a cable back": (
        topology(link(medium=VPN, rtt_us=51_000), back(), attempts=[attempt(True, "10.0.0.2", NO_WAY)]),
        WARNING,
        "from this node to bob there is only a VPN",
        f"51 ms by 192.168.4.2; bob reaches this node by THUNDERBOLT; 10.0.0.2: {NO_WAY}",
        "firewall of bob",
    ),
    "a cable there, a VPN back": (
        topology(link(), link(medium=VPN), back(medium=VPN, rtt_us=51_000)),
        WARNING,
        "from bob to this node there is only a VPN",
        "51 ms by 192.168.4.1; this node reaches bob by THUNDERBOLT and VPN",
        "firewall of this node",
    ),
}


@pytest.mark.parametrize(("graph", "severity", "what", "why", "remedy"), PAIRS.values(), ids=PAIRS.keys())
def test_a_pair_that_is_not_joined_as_it_should_be(
    graph: topology_pb2.Topology, severity: str, what: str, why: str, remedy: str
) -> None:
    one = only(of_links(graph, PEERS, LOG))
    assert (one.severity.value, one.what) == (severity, what)
    assert why in one.why
    assert remedy in one.remedy


def test_a_vpn_beside_a_cable_is_nothing_to_warn_of() -> None:
    assert troubles(found(link(chosen=True), back(), link(medium=VPN), back(medium=VPN))) == []


@pytest.mark.parametrize("node", [ME, BOB])
def test_what_was_not_probed_yet_is_not_missed(node: str) -> None:
    assert short(found(incomplete_node_ids=[node])) == [(NOTE, "links to bob")]
    assert troubles(found(link(chosen=True), incomplete_node_ids=[node])) == []


def test_what_takes_too_long_to_be_probed_is_told() -> None:
    long = Peers({BOB: "bob"}, {BOB: 10.0}, PORTS)
    one = only(of_links(topology(link(), incomplete_node_ids=[BOB]), long, LOG))
    assert (one.severity.value, one.what) == (WARNING, "links to bob are not measured")
    assert LOG in one.remedy


def test_of_many_addresses_some_are_told() -> None:
    attempts = [attempt(True, f"10.0.0.{n}", NO_WAY) for n in range(9)]
    assert only(found(attempts=attempts)).why.endswith("; 5 more")


ASYMMETRIC, ONE_SIDED = topology_pb2.LINK_MARK_ASYMMETRIC_ROUTE, topology_pb2.LINK_MARK_ONE_SIDED
ODD = "chosen: nothing else answers; ASYMMETRIC_ROUTE: there by en3 to en5, back by en0 to en0; x"
LINKS = {
    "slow": (
        link(state=DEGRADED, rtt_us=40_000),
        "the link to bob at 192.168.4.2 (THUNDERBOLT) is DEGRADED",
        "40 ms, and THUNDERBOLT should stay below 5 ms",
        "thunderline links --measure",
    ),
    "gone, with another left": (
        link(state=DOWN, local_interface="en3"),
        "the link to bob at 192.168.4.2 (THUNDERBOLT) is DOWN",
        "does not now",
        "en3",
    ),
    "asymmetric": (
        link(marks=[ASYMMETRIC], why=ODD),
        "the link to bob at 192.168.4.2 (THUNDERBOLT) comes back another way",
        "there by en3 to en5, back by en0 to en0",
        "ip route get",
    ),
    "one-sided": (
        link(marks=[ONE_SIDED], why="ONE_SIDED: only the node that dials tells of it"),
        "only one node tells of the link to bob at 192.168.4.2 (THUNDERBOLT)",
        "only the node that dials tells of it",
        "thunderline doctor` on bob",
    ),
}


@pytest.mark.parametrize(("odd", "what", "why", "remedy"), LINKS.values(), ids=LINKS.keys())
def test_a_link_that_is_not_as_it_should_be(odd: topology_pb2.Link, what: str, why: str, remedy: str) -> None:
    other = link(medium=ETHERNET, chosen=True)
    found_one = only(troubles(found(odd, other, back())))
    assert (found_one.severity.value, found_one.what) == (WARNING, what)
    assert why in found_one.why
    assert remedy in found_one.remedy


def test_links_of_the_peer_to_us_are_ours_too() -> None:
    one = only(troubles(found(link(chosen=True), back(state=DEGRADED, rtt_us=9_000))))
    assert one.what == "the link from bob to 192.168.4.1 (THUNDERBOLT) is DEGRADED"


def test_a_vpn_is_told_with_its_figures() -> None:
    assert only(of_links(PAIRS["only a VPN"][0], PEERS, LOG)).seen == "`thunderline links`: 51 ms by 192.168.4.2"


@pytest.mark.parametrize(("graph", "severity", "what", "why", "remedy"), PAIRS.values(), ids=PAIRS.keys())
def test_of_another_node_the_same_is_said_by_its_name(
    graph: topology_pb2.Topology, severity: str, what: str, why: str, remedy: str
) -> None:
    one = only(of_links(graph, PEERS, LOG, Node(ME, "ada")))
    assert (one.severity.value, one.what) == (severity, what.replace("this node", "ada"))
    assert remedy.replace("this node", "ada") in one.remedy


def cable(*nodes: str, lost: bool = True, receptacles: tuple[str, str] = ("", "")) -> topology_pb2.Cable:
    pairs = zip(nodes, receptacles, strict=True)
    ends = [topology_pb2.CableEnd(node_id=node, interface="en3", receptacle=where) for node, where in pairs]
    sentence = "CABLE_LOST: the cable between en3 of me and en3 of bob carries nothing. Plug it in again at both ends"
    return topology_pb2.Cable(one=ends[0], other=ends[1], lost=lost, sentence=sentence)


WIFI = [link(medium=ETHERNET, chosen=True), back(medium=ETHERNET)]


def test_a_lost_cable_is_told_with_its_remedy() -> None:
    one = only(troubles(found(*WIFI, cables=[cable(ME, BOB), cable(ME, BOB, lost=False), cable(BOB, "node-cleo")])))
    assert one.what == "CABLE_LOST between en3 of this node and en3 of bob"
    assert one.seen == "`thunderline links`: the cable between en3 of me and en3 of bob carries nothing"
    assert "takes another way" in one.why
    assert one.remedy.startswith("Plug it in again at both ends")
    assert "or its port is stuck" in one.unknown


def test_a_lost_cable_is_told_with_both_receptacles() -> None:
    one = only(troubles(found(*WIFI, cables=[cable(ME, BOB, receptacles=("2", "5"))])))
    assert one.what == "CABLE_LOST between en3 (receptacle 2) of this node and en3 (receptacle 5) of bob"
