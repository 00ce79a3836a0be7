"""The graph of the cluster, by the word of our own topology."""

from pathlib import Path

from rpc.little_roles import LittleTopology, run, until
from scheduler.little_scheduler import free_address
from thunderline.cluster.graph import Graph
from thunderline.rpc.graph import graph_from_proto
from thunderline.rpc.ways import Ways
from thunderline.scheduler.network import Network


async def test_it_is_what_topology_says_and_stays_so_while_that_is_away(tmp_path: Path) -> None:
    address, topology = free_address(), LittleTopology()
    ways = Ways(address, hears_all=True)
    network = Network(ways)
    assert network.graph == Graph()
    async with run(ways.run()):
        async with topology.at(address):
            topology.tell_best({"p": "192.168.4.2"}, "own")
            await until("it is heard", lambda: network.graph.links)
            assert network.graph == graph_from_proto(topology.topology)
            assert network.graph is network.graph, "it is read once"
            topology.tell_best({"p": "192.168.4.2", "q": "192.168.4.3"})
            await until("both are heard", lambda: len(network.graph.links) == 2)
        assert len(network.graph.links) == 2


def test_without_topology_there_is_nothing_to_know() -> None:
    assert Network(None).graph == Graph()
