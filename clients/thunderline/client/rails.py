"""The rails of a topology, as values."""

from thunderline.cluster.rails import Rail
from thunderline.rpc import rails as of_rails
from thunderline.v1 import topology_pb2


def rails(topology: topology_pb2.Topology) -> tuple[Rail, ...]:
    """In the order in which they are told. Raises nothing."""
    return tuple(of_rails.from_proto(one) for one in topology.rails)
