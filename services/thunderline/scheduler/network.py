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

    def read(self) -> None:
        """From any thread: what takes long is done when it is asked for."""
        assert self.graph is not None

    @property
    def graph(self) -> Graph:
        """Topology tells of every new RTT: what it says is read when somebody asks."""
        told = self._ways.topology if self._ways is not None else None
        if told is not None and told is not self._told:
            self._graph, self._told = graph_from_proto(told), told
        return self._graph
