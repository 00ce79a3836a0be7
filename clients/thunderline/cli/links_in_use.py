"""Over which links instances serve, as the scheduler knows: their bandwidth is not measured meanwhile. Pure."""

from collections.abc import Iterable
from itertools import combinations

from thunderline.v1 import cluster_pb2

# A rank in these has no process that would send anything.
OVER = (cluster_pb2.RANK_STATE_ABSENT, cluster_pb2.RANK_STATE_FAILED)

Pair = frozenset[str]


def pairs_in_use(scheduler: str, deployments: Iterable[cluster_pb2.Deployment]) -> frozenset[Pair]:
    """Pairs of node ids: nodes of one instance, and the scheduler node with each that has a READY rank.

    Every request and every token goes through the scheduler node.
    """
    found: set[Pair] = set()
    for deployment in deployments:
        for rank in deployment.ranks:
            if rank.state in OVER:
                continue
            nodes = [one.node_id for one in rank.placement.ranks]
            found.update(frozenset(pair) for pair in combinations(nodes, 2))
            if rank.state == cluster_pb2.RANK_STATE_READY:
                found.update(frozenset((scheduler, node)) for node in nodes)
    return frozenset(one for one in found if len(one) > 1)
