"""Topologies that take their machine for a Mac: what their own discovery's card tells of it."""

from pathlib import Path

from thunderline.v1 import cluster_pb2, topology_pb2
from topology.little_network import Node, living, nodes, pairs, roster


def on_a_mac(node: Node) -> Node:
    (node.home / "config.toml").write_text('[node]\nplatform = "darwin"\n')
    return node


def card(node: Node, has_looked: bool) -> cluster_pb2.NodeCard:
    """Of a Mac with one interface, a receptacle if one believes its commands."""
    told = node.card()
    told.operating_system = "darwin 25.2.0"
    (only,) = told.interfaces
    only.medium = cluster_pb2.MEDIUM_OTHER
    if has_looked:
        only.medium = cluster_pb2.MEDIUM_THUNDERBOLT
        told.machine.ports.add(uuid=f"port-of-{node.node}", receptacle="1", interface=only.name)
    return told


def is_by_cable(told: topology_pb2.Topology) -> bool:
    return bool(told.links) and all(one.medium == cluster_pb2.MEDIUM_THUNDERBOLT for one in told.links)


async def test_nothing_is_complete_before_it_has_looked_and_then_media_are_those_of_its_card(tmp_path: Path) -> None:
    one, other = (on_a_mac(node) for node in nodes(tmp_path, 2))
    before = roster(card(one, False), card(other, False))
    after = roster(card(one, True), card(other, True))
    both = {(one.node, other.node), (other.node, one.node)}
    async with living(one, before) as first, living(other, before) as second:
        told = await first.until("both directions", lambda told: pairs(told) == both)
        assert set(told.incomplete_node_ids) == {one.node, other.node}
        assert not is_by_cable(told)
        for node in (first, second):
            node.discovery.tell(after)
        for node in (first, second):
            await node.until("all is known, by cable", lambda told: is_by_cable(told) and not told.incomplete_node_ids)
        # Its discovery has begun again: what is known of the cable stays.
        first.discovery.tell(before)
        told = await first.until("it waits again", lambda told: one.node in told.incomplete_node_ids)
        assert is_by_cable(told)


async def test_one_whose_commands_all_fail_is_waited_for_no_longer(tmp_path: Path) -> None:
    one, other = (on_a_mac(node) for node in nodes(tmp_path, 2))
    cards = [card(node, False) for node in (one, other)]
    for told in cards:
        told.machine.warnings.add(command="ifconfig", what="took longer than 5 s")
    async with living(one, roster(*cards)) as first, living(other, roster(*cards)):
        await first.until("it is complete", lambda told: len(pairs(told)) == 2 and not told.incomplete_node_ids)
