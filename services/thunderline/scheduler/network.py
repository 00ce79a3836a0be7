"""The graph of the cluster, as our own topology tells it. While that is away, what it said last stays."""

from thunderline.cluster.graph import Graph
from thunderline.rpc.graph import graph_from_proto
from thunderline.rpc.ways import Ways


class Network:
    """Shares the stream of `ways`; without ways there is nothing to know."""

    def __init__(self, ways: Ways | None) -> None:
        self._ways = ways
        self._told: object = None
        self._graph = Graph()

    @property
    def graph(self) -> Graph:
        """Topology tells of every new RTT: what it says is read when somebody asks."""
        if self._ways is not None and self._ways.topology is not self._told:
            self._told = self._ways.topology
            self._graph = graph_from_proto(self._ways.topology)
        return self._graph
