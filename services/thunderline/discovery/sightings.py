"""What a node announces by multicast DNS, and what is taken of it: anybody on the network can say anything. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_probed, target
from thunderline.discovery.peers import ADDRESS_COUNT_MAX, Lead
from thunderline.discovery.values import Card, Stranger
from thunderline.discovery.wire import PORT_MAX, is_node_id

SERVICE_TYPE = "_thunderline._tcp.local."
# An entry of a TXT record holds 255 bytes, its name among them.
TEXT_BYTES_MAX = 200
# Of all announcements that are heard so many are kept.
SIGHTING_COUNT_MAX = 256


@dataclass(frozen=True, slots=True)
class Sighting:
    """A node that announces itself."""

    node_id: NodeId
    cluster_name: str
    addresses: tuple[str, ...]


def name_of(own: Card) -> str:
    """Of one start: a copied disk's node has a name of its own."""
    return f"{own.node_id}-{own.life.start_id[:8]}.{SERVICE_TYPE}"


def texts(own: Card, port: int, version: str) -> dict[str, str]:
    return {
        "cluster": cut(own.cluster_name),
        "node_id": own.node_id,
        "port": str(port),
        "version": cut(version),
    }


def cut(text: str) -> str:
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")


def sighting(
    texts: Mapping[str, str | None], addresses: Iterable[str], port: int | None, same_machine: bool = False
) -> Sighting | None:
    """None for what is no announcement of a node."""
    node_id, cluster_name = texts.get("node_id") or "", texts.get("cluster") or ""
    fits = is_node_id(node_id) and cluster_name.isprintable() and 0 < len(cluster_name) <= TEXT_BYTES_MAX
    if not fits or port is None or not 1 <= port <= PORT_MAX:
        return None
    dialled = [target(one, port) for one in addresses if "%" not in one and is_probed(one, same_machine)]
    return Sighting(NodeId(node_id), cluster_name, tuple(dialled[:ADDRESS_COUNT_MAX])) if dialled else None


def parted(sightings: Iterable[Sighting], own: Card) -> tuple[tuple[Lead, ...], tuple[Stranger, ...]]:
    """Those of our cluster, whom we may call, and those of others, who are only shown."""
    leads, strangers = [], []
    for one in sightings:
        if one.cluster_name == cut(own.cluster_name):
            leads.append(Lead(one.node_id, one.addresses))
        else:
            strangers.append(Stranger(one.node_id, one.cluster_name, addresses=one.addresses))
    return tuple(leads), tuple(strangers)
