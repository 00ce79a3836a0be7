"""What a card tells of its node's hardware, as values."""

from thunderline.cluster.machine_facts import MachineFacts
from thunderline.rpc import machine_facts
from thunderline.v1 import cluster_pb2


def facts(card: cluster_pb2.NodeCard) -> MachineFacts | None:
    """None: the node has not looked at it yet, or is of a version that does not. Raises nothing, whatever it says."""
    return machine_facts.from_proto(card.machine) if card.HasField("machine") else None
