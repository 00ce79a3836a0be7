"""Thunderbolt ports of simulated Macs: UUIDs, receptacles, names of interfaces, and what each port sees, or saw.

They have a chance of their own: a world without Macs is the same as if there were none.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from simulation.topology_networks import Net, Networks
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, Graph
from thunderline.cluster.machine_facts import RdmaPortState, SeenMac, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.rails import Rail

if TYPE_CHECKING:
    from simulation.topology_host import Host

# Of worlds with cables; of their hosts; of those worlds in which one Mac shows nobody at its ports.
WORLD_SHARE, HOST_SHARE, BLIND_SHARE = 0.3, 0.9, 0.3
# Between two looks at the ports, and how many of those come to nothing while there are faults: a command hangs.
LOOK_S, HUNG_SHARE = (1.0, 5.0), 0.1
FREE_COUNT = 2
HUBS = ((), (), (), ("Hub",), ("Hub", "Dock"))


class Macs:
    def __init__(self, seed: int, networks: Networks, host_count: int, is_plain: bool) -> None:
        self.chance = chance = random.Random(f"macs of {seed}")
        self.networks = networks
        self.cables = [net for net in networks.nets if net.medium is Medium.THUNDERBOLT]
        self.hosts: frozenset[int] = frozenset()
        if self.cables and not is_plain and chance.random() < WORLD_SHARE:
            self.hosts = frozenset(host for host in range(host_count) if chance.random() < HOST_SHARE)
        self.blind: set[int] = set()
        if self.hosts and chance.random() < BLIND_SHARE:
            self.blind.add(chance.choice(sorted(self.hosts)))
        # By UUID.
        self._receptacles: dict[str, int] = {}
        self._due_s: dict[int, float] = {}
        # Ports that were ever joined by one cable.
        self.joined: set[frozenset[str]] = set()
        for net in self.cables:
            net.macs, net.hubs = self.hosts & set(net.members), chance.choice(HUBS)
            self.plugged(net)

    def plugged(self, net: Net) -> None:
        """Into the ports where its ends are now."""
        self.joined.add(frozenset(net.uuid(host) for host in net.members))

    def reboot(self, host: int) -> None:
        """Now and then two of its ports come up with each other's interfaces."""
        cables = [net for net in self.cables if host in net.macs]
        if len(cables) > 1 and self.chance.random() < 0.5:
            one, other = self.chance.sample(cables, 2)
            one.labels[host], other.labels[host] = other.label(host), one.label(host)
            self.networks.changed()

    def look(self, host: "Host", now_s: float, faults: bool) -> None:
        """Its discovery looks at the ports, when that is due."""
        if host.index not in self.hosts or not host.discovers or now_s < self._due_s.get(host.index, 0.0):
            return
        self._due_s[host.index] = now_s + self.chance.uniform(*LOOK_S)
        if faults and self.chance.random() < HUNG_SHARE:
            return
        found = self.ports(host.index)
        if host.ports != found:
            host.ports = found

    def ports(self, host: int) -> tuple[ThunderboltPort, ...]:
        """As they are now. Those that an end was moved from, or will be, are free."""
        found = []
        for net in self.cables:
            if host in net.macs:
                used = net.moves.get(host, 0)
                every = range(used + 1 + FREE_COUNT)
                found += [self._port(net, host, number, is_used=number == used) for number in every]
        return tuple(sorted(found, key=lambda port: int(port.receptacle)))

    def _port(self, net: Net, host: int, number: int, is_used: bool) -> ThunderboltPort:
        [peer] = set(net.members) - {host}
        is_connected = is_used and not net.unplugged
        hubs = net.hubs if host == net.members[0] else net.hubs[::-1]
        sees = is_connected and peer in net.macs and host not in self.blind
        uuid, interface = net.uuid(host, number), f"{net.label(host)}.{number}"
        return ThunderboltPort(
            uuid=uuid,
            receptacle=str(self._receptacle(uuid)),
            interface=interface,
            rdma_device=f"rdma_{interface}",
            rdma_port=RdmaPortState.ACTIVE if is_connected else RdmaPortState.DOWN,
            is_connected=is_connected,
            speed_gbps=80 if is_connected else 0,
            macs=(SeenMac(net.uuid(peer), "Mac Studio", "Mac15,14", hubs),) if sees else (),
            devices=hubs if is_connected else (),
        )

    def _receptacle(self, uuid: str) -> int:
        """In no order that another host has too."""
        if uuid not in self._receptacles:
            free = set(range(1, 100)) - set(self._receptacles.values())
            self._receptacles[uuid] = self.chance.choice(sorted(free))
        return self._receptacles[uuid]

    def rails(self, names: Sequence[NodeId], present: Collection[NodeId]) -> set[tuple[frozenset[str], bool]]:
        """Those that are there: the UUIDs of both ends, and whether only one of them sees the other."""
        found = set()
        for net in self.cables:
            seeing = set(net.members) - self.blind
            are_there = all(names[host] in present for host in net.members)
            if set(net.members) <= self.hosts and seeing and are_there and not net.unplugged:
                found.add((frozenset(net.uuid(host) for host in net.members), len(seeing) == 1))
        return found


def ends_of(rails: Iterable[Rail]) -> set[tuple[frozenset[str], bool]]:
    return {(frozenset((one.one.port_uuid, one.other.port_uuid)), one.is_one_sided) for one in rails}


def agree(graph: Graph, cable: Cable) -> bool:
    """Whether the ports that nodes tell are those of this cable: by the names of today, and plugged in nowhere else."""
    told: Mapping[NodeId, tuple[ThunderboltPort, ...]] = dict(graph.ports)
    pair = {end.port_uuid for end in cable.ends}
    for end in cable.ends:
        if end.port_uuid and (end.interface, end.port_uuid) not in {
            (port.interface, port.uuid) for port in told.get(end.node, ())
        }:
            return False
    sighted = [{port.uuid, mac.port_uuid} for ports in told.values() for port in ports for mac in port.macs]
    return all(one == pair for one in sighted if one & pair)
