"""A rail, there and back."""

from dataclasses import replace

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaPortState
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.rpc.rails import from_proto, to_proto
from thunderline.v1 import cluster_pb2, topology_pb2

ONE = RailEnd(NodeId("a"), "rdma_en5", "en5", "uuid-a", "4", RdmaPortState.ACTIVE, bridge="bridge0")
OTHER = RailEnd(NodeId("b"), "rdma_en2", "en2", "uuid-b", "1", RdmaPortState.DOWN, is_next_to_ethernet=True)
RAIL = Rail(ONE, OTHER, 80, ("Hub",), is_one_sided=True)


def test_a_rail_is_told_with_both_its_ends() -> None:
    told = to_proto(RAIL)
    assert (told.one.node_id, told.one.device, told.one.interface) == ("a", "rdma_en5", "en5")
    assert (told.other.port_uuid, told.other.receptacle) == ("uuid-b", "1")
    assert [end.state for end in (told.one, told.other)] == [
        cluster_pb2.RDMA_PORT_STATE_ACTIVE,
        cluster_pb2.RDMA_PORT_STATE_DOWN,
    ]
    assert [(end.bridge, end.next_to_ethernet) for end in (told.one, told.other)] == [("bridge0", False), ("", True)]
    assert (told.speed_gbps, list(told.behind), told.one_sided, told.hub_unknown) == (80, ["Hub"], True, False)


def test_a_rail_comes_back_as_it_was_told() -> None:
    for one in (RAIL, Rail(OTHER, ONE, is_hub_unknown=True), replace(RAIL, is_one_sided=False)):
        assert from_proto(to_proto(one)) == one


def test_a_state_of_a_newer_version_is_unknown() -> None:
    told = topology_pb2.Rail(one=topology_pb2.RailEnd(state=99))  # type: ignore[arg-type]
    assert from_proto(told).one.state is RdmaPortState.UNKNOWN
