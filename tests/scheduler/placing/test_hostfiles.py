"""What MLX reads, written and checked; hostfiles of mlx.launch, written, read, and kept to."""

import json
from dataclasses import replace
from typing import Any

import pytest

from scheduler.placing.scenes import (
    CANNOT,
    CUDA,
    LINUX,
    cable,
    circle_of_rails,
    dials,
    lan,
    mesh_of_rails,
    model,
    node,
    nodes,
    placed,
    rail,
    situation,
    vpn,
    where,
)
from thunderline.cluster import NodeId
from thunderline.scheduler.placing.hostfiles import (
    BadHostfile,
    launch_hostfile,
    listening,
    matrix_json,
    matrix_problems,
    read_launch_hostfile,
    ring_hosts,
    ring_json,
    ring_problems,
)
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import (
    Backend,
    Hostfile,
    HostfileHost,
    Matrix,
    Model,
    Placement,
    Policy,
    Reason,
    Situation,
    Strategy,
    Verdict,
)

THREE_BY_CABLE = [*cable("a", "b"), *cable("b", "c"), *cable("a", "c")]


def three() -> Placement:
    return placed(plan(situation(nodes("abc", backends=LINUX), THREE_BY_CABLE), model(180)))


def test_each_rank_listens_where_the_one_before_it_dials() -> None:
    found = three()
    assert found.nodes == ("a", "b", "c")
    assert listening(found) == ("10.1.3.1", "10.1.2.2", "10.2.3.3")
    hosts = ring_hosts(found, [[5001], [5002], [5003]])
    assert json.loads(ring_json(hosts)) == [["10.1.3.1:5001"], ["10.1.2.2:5002"], ["10.2.3.3:5003"]]
    assert ring_problems(hosts) == []


def test_a_ring_may_have_several_sockets_to_each_neighbour() -> None:
    hosts = ring_hosts(three(), [[5001, 5002]] * 3)
    assert hosts[0] == ("10.1.3.1:5001", "10.1.3.1:5002")
    assert ring_problems(hosts) == []


RINGS: dict[str, tuple[list[list[str]], str]] = {
    "one rank": ([["10.0.0.1:5000"]], "two ranks at least"),
    "a rank without an address": ([["10.0.0.1:5000"], []], "as many addresses as the others"),
    "unequal counts": ([["10.0.0.1:5000"], ["10.0.0.2:5000", "10.0.0.2:5001"]], "as many addresses as the others"),
    "IPv6": ([["10.0.0.1:5000"], ["fd00::2:5000"]], "rank 1: 'fd00::2:5000' is no IPv4 address"),
    "a name": ([["studio.local:5000"], ["10.0.0.2:5000"]], "rank 0: 'studio.local:5000'"),
    "no port": ([["10.0.0.1"], ["10.0.0.2:5000"]], "rank 0"),
    "a port that there is not": ([["10.0.0.1:65536"], ["10.0.0.2:5000"]], "rank 0"),
    "port 0": ([["10.0.0.1:0"], ["10.0.0.2:5000"]], "rank 0"),
    "the same twice": ([["10.0.0.1:5000"], ["10.0.0.1:5000"]], "10.0.0.1:5000 is given twice"),
}


@pytest.mark.parametrize(("hosts", "says"), RINGS.values(), ids=RINGS.keys())
def test_a_ring_that_mlx_would_stumble_over(hosts: list[list[str]], says: str) -> None:
    assert says in "; ".join(ring_problems(hosts))


X, Y, Z = ("x",), ("y",), ("z",)
MESH3: Matrix = (((), X, Y), (X, (), Y), (X, Y, ()))
RING4: Matrix = (((), X, (), Y), (X, (), Y, ()), ((), X, (), Y), (X, (), Y, ()))
MATRICES: dict[str, tuple[Matrix, bool, str]] = {
    "a mesh of three": (MESH3, False, ""),
    "a mesh of three as a ring": (MESH3, True, ""),
    "a ring of four": (RING4, True, ""),
    "a ring of four is no mesh": (RING4, False, "no device of rank 0 leads to rank 2"),
    "a hole in a mesh": ((((), X, Y), (X, (), ()), (X, Y, ())), False, "no device of rank 1 leads to rank 2"),
    "two of different length": ((((), X), (X, (), Y)), False, "row 1 has 3 entries instead of 2"),
    "one alone": ((((),),), False, "two ranks at least"),
    "a rank that leads to itself": (((X, Y), (Y, ())), False, "rank 0 leads to itself"),
    "one device to two places": ((((), X, X), (X, (), Y), (X, Y, ())), False, "x of rank 0 leads to several places"),
    "one direction with more cables": ((((), ("x", "y")), (X, ())), False, "name 2 and 1 devices"),
    "unequal neighbours of a ring": (
        (((), ("x", "z"), (), Y), (("x", "z"), (), Y, ()), ((), X, (), Y), (X, (), Y, ())),
        True,
        "1 to 2 devices for each other",
    ),
    "five cables between neighbours": (
        (((), ("1", "2", "3", "4", "5")), (("1", "2", "3", "4", "5"), ())),
        True,
        "4 devices for each other at most",
    ),
    "neighbours without a cable": ((MESH3[0], ((), (), Y), (X, Y, ())), True, "have no device for each other"),
    "more ranks than a mesh has": (
        tuple(tuple(() if i == j else (f"d{j}",) for j in range(9)) for i in range(9)),
        False,
        "a mesh has 8 ranks at most, not 9",
    ),
}


@pytest.mark.parametrize(("devices", "is_ring", "says"), MATRICES.values(), ids=MATRICES.keys())
def test_a_matrix_is_checked(devices: Matrix, is_ring: bool, says: str) -> None:
    found = "; ".join(matrix_problems(devices, is_ring))
    assert says in found and bool(found) == bool(says)


def test_a_matrix_as_mlx_reads_it() -> None:
    assert json.loads(matrix_json(MESH3)) == [[None, "x", "y"], ["x", None, "y"], ["x", "y", None]]
    assert json.loads(matrix_json((((), ("x", "y")), (("y", "x"), ())))) == [[None, ["x", "y"]], [["y", "x"], None]]


RAILS: list[Situation] = [
    situation(nodes("ab"), lan("ab"), [rail("a", "b", ("en3", "en4")), rail("a", "b", ("en4", "en3"))]),
    situation(nodes("abcdefgh"), lan("abcdefgh"), mesh_of_rails("abcdefgh")),
]


@pytest.mark.parametrize("here", RAILS, ids=["two cables of two nodes", "a mesh of eight"])
def test_our_own_matrices_are_fine(here: Situation) -> None:
    found = placed(plan(here, model(75 * len(here.nodes))))
    assert found.backend is Backend.JACCL
    assert matrix_problems(found.devices, found.is_rail_ring) == []


def tree(placement: Placement) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launch_hostfile(placement, {NodeId("a"): "studio-1.local"}))
    return found


def test_a_ring_for_mlx_launch() -> None:
    assert tree(three()) == {
        "backend": "ring",
        "envs": [],
        "hosts": [
            {"ssh": "studio-1.local", "ips": ["10.1.3.1"]},
            {"ssh": "b", "ips": ["10.1.2.2"]},
            {"ssh": "c", "ips": ["10.2.3.3"]},
        ],
    }


def test_one_node_for_mlx_launch() -> None:
    found = placed(plan(situation(nodes("a")), model(20)))
    assert tree(found) == {"backend": "ring", "envs": [], "hosts": [{"ssh": "studio-1.local", "ips": []}]}


def test_rails_for_mlx_launch() -> None:
    found = placed(plan(situation(nodes("ab"), lan("ab"), [rail("a", "b", ("en3", "en5"))]), model(120)))
    assert tree(found) == {
        "backend": "jaccl",
        "envs": [],
        "hosts": [
            {"ssh": "studio-1.local", "ips": ["192.168.1.1"], "rdma": [None, "rdma_en3"]},
            {"ssh": "b", "ips": [], "rdma": ["rdma_en5", None]},
        ],
    }


BAD: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "is no JSON"),
    "no hosts": ('{"hosts": []}', "no list of hosts"),
    "a number": ("7", "no list of hosts"),
    "a backend that there is not": ('{"backend": "smoke", "hosts": [{"ssh": "a"}]}', "'smoke' is none of"),
    "a host without a name": ('[{"ips": []}]', "host 0: has no `ssh`"),
    "addresses that are none": ('[{"ssh": "a", "ips": [7]}]', "host 0: `ips`"),
    "devices that are none": ('[{"ssh": "a", "rdma": [null, 7]}]', "host 0: `rdma`"),
    "devices of one host only": ('[{"ssh": "a", "rdma": [null, "x"]}, {"ssh": "b"}]', "by one of them only"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD.keys())
def test_a_hostfile_that_is_none(text: str, says: str) -> None:
    with pytest.raises(BadHostfile, match=says):
        read_launch_hostfile(text)


def test_a_hostfile_in_its_short_form() -> None:
    assert read_launch_hostfile('[{"ssh": "a", "ips": ["10.0.0.1"]}, {"ssh": "b"}]') == Hostfile(
        (HostfileHost("a", ("10.0.0.1",)), HostfileHost("b"))
    )


UNEVEN = situation([node("a", 150), node("b", 30)], lan("ab"), [rail("a", "b")])
WRITTEN: dict[str, tuple[Situation, Model]] = {
    "one node alone": (situation(nodes("ab"), []), model(20)),
    "NCCL, which finds its own links": (
        situation(nodes("ab", backends=CUDA), [*lan("ab"), *cable("a", "b")]),
        model(120),
    ),
    "a ring": (situation(nodes("abc", backends=LINUX), THREE_BY_CABLE), model(180)),
    "two cables": (RAILS[0], model(120)),
    "a mesh of eight": (RAILS[1], model(600)),
    # A hostfile does not say how the work is divided: in the best way that these nodes have.
    "a pipeline over rails, whose heads do not divide evenly": (RAILS[0], model(120, head_count=9, kv_head_count=3)),
    "a pipeline over rails, of nodes too uneven for halves": (UNEVEN, model(150)),
}


@pytest.mark.parametrize(("here", "of"), WRITTEN.values(), ids=WRITTEN.keys())
def test_what_is_written_for_mlx_launch_is_read_as_the_same_placement(here: Situation, of: Model) -> None:
    first = placed(plan(here, of))
    again = plan(here, of, Policy(hostfile=read_launch_hostfile(launch_hostfile(first, {}))))
    assert replace(placed(again), reasons=()) == replace(first, reasons=())


def test_a_hostfile_of_nodes_without_room_says_so_of_every_way() -> None:
    written = launch_hostfile(placed(plan(UNEVEN, model(150))), {})
    found = plan(UNEVEN, model(170), Policy(hostfile=read_launch_hostfile(written)))
    assert found.verdict is Verdict.IMPOSSIBLE
    assert "tensor: each of 2 ranks needs" in found.why
    assert "pipeline: no split of its 170 layers fits" in found.why


def given(*hosts: HostfileHost, backend: str = "") -> Policy:
    return Policy(hostfile=Hostfile(hosts, backend))


def ips(name: str, *addresses: str) -> HostfileHost:
    return HostfileHost(name, addresses)


LAN3 = situation(
    [node(one, addresses=(f"192.168.1.{k}", f"100.64.0.{k}")) for k, one in enumerate("abc", 1)],
    [*lan("abc"), *vpn("abc")],
)
HOLE = (((), X, Y), (X, (), ()), (X, (), ()))
RAIL2 = situation(nodes("ab"), lan("ab"), [rail("a", "b", ("en3", "en4")), rail("a", "b", ("en4", "en3"))])


def test_a_given_order_and_given_addresses_are_kept() -> None:
    """Though a rotation of it and the LAN would be better."""
    policy = given(ips("admin@c", "192.168.1.3"), ips("b", "100.64.0.2"), ips("a", "192.168.1.1"))
    found = plan(LAN3, model(20), policy)
    assert where(found) == "pipeline ring c b a"
    assert dials(found) == ["c→b 100.64.0.2", "b→a 192.168.1.1", "a→c 192.168.1.3"]
    assert "VPN" in found.why and placed(found).slow


def test_given_cables_are_kept_in_their_order() -> None:
    hosts = (
        HostfileHost("a", ("192.168.1.1",), ((), ("rdma_en4", "rdma_en3"))),
        HostfileHost("b", (), (("rdma_en3", "rdma_en4"), ())),
    )
    found = placed(plan(RAIL2, model(120), given(*hosts, backend="jaccl")))
    assert found.devices == (((), ("rdma_en4", "rdma_en3")), (("rdma_en3", "rdma_en4"), ()))


def test_a_circle_of_rails_is_no_mesh_and_not_silently_a_ring() -> None:
    here = situation(nodes("abcd"), lan("abcd"), circle_of_rails("abcd"))
    written = launch_hostfile(placed(plan(here, model(260))), {})
    assert placed(plan(here, model(260), Policy(hostfile=read_launch_hostfile(written)))).is_rail_ring
    as_mesh = read_launch_hostfile(written.replace("jaccl-ring", "jaccl"))
    assert "no device of rank 0 leads to rank 2" in plan(here, model(260), Policy(hostfile=as_mesh)).why


def test_a_mesh_that_is_to_be_a_ring_stays_one() -> None:
    hosts = (HostfileHost("a", (), ((), ("rdma_en3",))), HostfileHost("b", (), (("rdma_en4",), ())))
    assert placed(plan(RAIL2, model(120), given(*hosts, backend="jaccl-ring"))).is_rail_ring


FAULTS: dict[str, tuple[Situation, Policy, str]] = {
    "a host that nobody knows": (LAN3, given(ips("a"), ips("elsewhere")), "host 1 (elsewhere) is no node"),
    "the same node twice": (LAN3, given(ips("a", "192.168.1.1"), ips("192.168.1.1")), "two of its hosts are one node"),
    "a name and an address of two nodes": (LAN3, given(ips("a", "192.168.1.2"), ips("c")), "host 0 (a) may be a or b"),
    "hosts that nobody knows at all": (LAN3, given(ips("x"), ips("y")), "host 1 (y) is no node"),
    "one host without room": (LAN3, given(ips("a")), "needs 135.75 GiB, has 96.00 GiB free"),
    "one host for a group": (LAN3, replace(given(ips("a")), strategy=Strategy.TENSOR), "two hosts at least"),
    "fewer hosts than are asked for": (
        LAN3,
        replace(given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2")), node_count_min=3),
        "3 nodes at least are asked for, it has 2 hosts",
    ),
    "not all nodes that are asked for": (
        LAN3,
        replace(
            given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2")), nodes=frozenset({NodeId(one) for one in "abc"})
        ),
        "c should take part, and is not in it",
    ),
    "rows of rails that nobody reads": (
        LAN3,
        given(HostfileHost("a", ("192.168.1.1",), ((),)), HostfileHost("b", ("192.168.9.9",), ((),)), backend="ring"),
        "192.168.9.9 cannot be dialled",
    ),
    "no address": (LAN3, given(ips("a", "192.168.1.1"), ips("b")), "host 1 has no address"),
    "an address that nobody dialled": (
        situation(nodes("ab"), lan("ab")),
        given(ips("a", "192.168.1.1"), ips("b", "10.9.9.9")),
        "10.9.9.9 cannot be dialled: a → b: 192.168.1.2 (ETHERNET",
    ),
    "no rail at the device that it names": (
        RAIL2,
        given(HostfileHost("a", (), ((), ("rdma_en3",))), HostfileHost("b", (), (("rdma_en3",), ()))),
        "no cable that can be used joins rdma_en3 of a and rdma_en3 of b",
    ),
    "rails without a device": (
        LAN3,
        given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2"), backend="jaccl"),
        "it names no RDMA devices",
    ),
    "a mesh with a hole": (
        LAN3,
        given(*(HostfileHost(one, (), row) for one, row in zip("abc", HOLE, strict=True)), backend="jaccl"),
        "no device of rank 1 leads to rank 2",
    ),
    "another backend than is asked for": (
        LAN3,
        replace(given(ips("a"), ips("b"), backend="jaccl"), backend=Backend.RING),
        "the hostfile is for jaccl, ring is asked for",
    ),
    "a backend that a node lacks": (
        situation(nodes("ab", backends=LINUX), lan("ab")),
        given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2"), backend="nccl"),
        "the MLX of a offers no nccl",
    ),
    "a coordinator that cannot be dialled": (
        situation(nodes("ab", backends=CUDA), lan("ab")),
        given(ips("a", "192.168.1.9"), ips("b"), backend="nccl"),
        "192.168.1.9 of rank 0 cannot be dialled",
    ),
    "a model that the engine cannot split so": (
        LAN3,
        given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2")),
        "hand on more than one array",
    ),
    "a slow link where it must be fast": (
        LAN3,
        replace(given(ips("a", "192.168.1.1"), ips("b", "100.64.0.2")), requires_fast=True),
        "is too slow: VPN has no minimum",
    ),
    "a model that does not fit so": (
        situation([node("a", 200, addresses=("192.168.1.1",)), node("b", 2)], lan("ab")),
        given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2")),
        "no split of its 120 layers fits",
    ),
}


# What no other link, cable or free memory would mend.
NEVER = {
    "one host without room",
    "a backend that a node lacks",
    "a model that the engine cannot split so",
    "a model that does not fit so",
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_given_hostfile_is_refused_with_its_faults(case: str) -> None:
    here, policy, says = FAULTS[case]
    wants = model(120)
    if "array" in says:
        wants = replace(wants, pipeline=CANNOT, tensor=CANNOT)
    wants = replace(wants, layer_bytes=tuple(one * 2 for one in wants.layer_bytes)) if "no split" in says else wants
    found = plan(here, wants, policy)
    assert found.verdict is (Verdict.IMPOSSIBLE if case in NEVER else Verdict.WAITING)
    assert found.placement is None
    assert found.why.count(says) == 1
    assert {one.reason for one in found.rejected} == {Reason.HOSTFILE}


def test_a_given_tensor_group_needs_the_memory_of_each() -> None:
    here = situation([node("a", 200), node("b", 48)], lan("ab"), [rail("a", "b", ("en3", "en4"))])
    hosts = (HostfileHost("a", (), ((), ("rdma_en3",))), HostfileHost("b", (), (("rdma_en4",), ())))
    policy = replace(given(*hosts), strategy=Strategy.TENSOR)
    assert "each of 2 ranks needs 67.88 GiB: b 48.00 GiB free" in plan(here, model(120), policy).why


def test_a_given_hostfile_waits_for_a_node_that_is_not_alive() -> None:
    here = replace(LAN3, nodes=(*LAN3.nodes[:2], replace(LAN3.nodes[2], is_alive=False)))
    found = plan(here, model(20), given(ips("a", "192.168.1.1"), ips("c", "192.168.1.3")))
    assert found.verdict is Verdict.WAITING and "c is not ALIVE" in found.why


def test_a_strategy_may_be_asked_for_beside_it() -> None:
    policy = replace(given(ips("a", "192.168.1.1"), ips("b", "192.168.1.2")), strategy=Strategy.TENSOR)
    assert where(plan(LAN3, model(20), policy)) == "tensor ring a b"
