"""How fast a placement would decode one sequence. Pure, and rough: for comparing placements, not for promising.

Of each token:

    memory_s  pipeline: the sum over the ranks of read_r / bandwidth_r; tensor: the largest of them
              read_r: bytes of the rank's weights that one token reads, the head once more; a tensor rank reads its
              part of every layer. Of many experts only the chosen ones count. KV is left out: a short context.
    links_s   pipeline: the n - 1 hops of the activation, from the last rank to rank 0
              tensor: 2 sums a layer, each of (n - 1) * 2 hops around a ring or 1 hop across a mesh of rails
              and the closing collective of a step: (n - 1) * 2 hops, or 1, of nothing but a few numbers
    a hop     RTT / 2 + bytes / bandwidth of the slowest link that takes part; over rails RAIL_HOP_S instead of the RTT
    tokens_s  1 / (memory_s + links_s)

Left out, so that the true figure is lower: arithmetic, kernel launches, and the fence between GPU and CPU that every
collective of MLX has on Metal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from thunderline.scheduler.placing.grounds import Grounds
from thunderline.scheduler.placing.rdma import speed_gbps
from thunderline.scheduler.placing.values import Backend, Dial, Estimate, Placement, Strategy

# Assumed, not measured here: tens of microseconds are told of RDMA over Thunderbolt, where TCP takes 300 and more.
RAIL_HOP_S = 20e-6
# Where neither end of a rail tells its speed: the least that Thunderbolt is asked for.
RAIL_GBPS_MIN = 10
SUMS_PER_LAYER = 2


@dataclass(frozen=True, slots=True)
class _Hop:
    delay_s: float
    bytes_per_s: float

    def of(self, bytes_: float) -> float:
        return self.delay_s + (bytes_ / self.bytes_per_s if self.bytes_per_s else 0.0)


def estimate(placement: Placement, grounds: Grounds) -> Placement:
    """The placement with its estimate; without one where the memory bandwidth of a node is not known."""
    nodes = [grounds.nodes[grounds.numbers[rank.node]] for rank in placement.ranks]
    if not all(node.memory_bytes_per_s for node in nodes):
        return placement
    times_s = [read_bytes(placement, grounds, rank) / node.memory_bytes_per_s for rank, node in enumerate(nodes)]
    memory_s = max(times_s) if placement.strategy is Strategy.TENSOR else sum(times_s)
    found = Estimate(memory_s, _links_s(placement, grounds))
    # Of a model whose files tell no weights.
    return replace(placement, estimate=found) if found.memory_s + found.links_s else placement


def read_bytes(placement: Placement, grounds: Grounds, rank: int) -> float:
    """Weights that a rank reads for one token."""
    model = grounds.model
    layers = (model.layer_read_bytes or model.layer_bytes)[
        placement.ranks[rank].first_layer : placement.ranks[rank].end_layer
    ]
    has_head = rank == 0 or placement.strategy is Strategy.TENSOR
    head = (model.head_bytes + (model.embedding_bytes if model.is_tied else 0)) if has_head else 0
    return sum(layers) / (len(placement.ranks) if placement.strategy is Strategy.TENSOR else 1) + head


def _links_s(placement: Placement, grounds: Grounds) -> float:
    count, bytes_ = len(placement.ranks), grounds.model.activation_bytes
    if count == 1:
        return 0.0
    slowest = _slowest(placement, grounds)
    is_mesh = placement.backend is Backend.JACCL and not placement.is_rail_ring
    hops = 1 if is_mesh else 2 * (count - 1)
    closing_s = hops * slowest.of(0)
    if placement.strategy is Strategy.PIPELINE:
        return (count - 1) * slowest.of(bytes_) + closing_s
    # Around a ring each hop carries a part.
    part = bytes_ if is_mesh else bytes_ / count
    return SUMS_PER_LAYER * grounds.model.layer_count * hops * slowest.of(part) + closing_s


def _slowest(placement: Placement, grounds: Grounds) -> _Hop:
    ranks = placement.ranks
    dials: Iterable[Dial] = (dial for rank in ranks for dial in rank.dials)
    if placement.backend is Backend.JACCL:
        speeds = [speed_gbps(dial.rails) or RAIL_GBPS_MIN for dial in dials if dial.rails]
        return _Hop(RAIL_HOP_S, min(speeds) * 1e9 / 8)
    nodes = placement.nodes
    ways = [grounds.dialling.ways[nodes[i], nodes[(i + 1) % len(nodes)]].link for i in range(len(nodes))]
    delay_s = max(grounds.dialling.rtt_us(link) for link in ways) / 2e6
    known = [bits for link in ways if (bits := grounds.dialling.bits_per_s(link))]
    return _Hop(delay_s, min(known, default=0) / 8)
