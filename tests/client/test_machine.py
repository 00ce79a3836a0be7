"""What a card tells of its node's hardware."""

from thunderline.client.machine import facts
from thunderline.cluster.machine_facts import MachineFacts, RdmaState
from thunderline.rpc.machine_facts import to_proto
from thunderline.v1 import cluster_pb2


def test_a_card_that_does_not_tell_is_told_from_one_that_knows_nothing() -> None:
    assert facts(cluster_pb2.NodeCard()) is None
    assert facts(cluster_pb2.NodeCard(machine=cluster_pb2.MachineFacts())) == MachineFacts()


def test_what_a_card_tells_comes_as_values() -> None:
    told = MachineFacts(model="Mac16,11", rdma=RdmaState.ENABLED, sleep_after_min=0)
    assert facts(cluster_pb2.NodeCard(machine=to_proto(told))) == told
