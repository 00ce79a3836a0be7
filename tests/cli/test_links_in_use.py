"""Over which links instances serve."""

import pytest

from thunderline.cli.links_in_use import pairs_in_use
from thunderline.v1 import cluster_pb2

S, A, B, C = "scheduler", "a", "b", "c"
READY, LOADING = cluster_pb2.RANK_STATE_READY, cluster_pb2.RANK_STATE_LOADING
FAILED = cluster_pb2.RANK_STATE_FAILED


def deployment(state: "cluster_pb2.RankState.ValueType", *nodes: str) -> cluster_pb2.Deployment:
    placement = cluster_pb2.Placement(ranks=[cluster_pb2.RankAssignment(node_id=one) for one in nodes])
    return cluster_pb2.Deployment(ranks=[cluster_pb2.RankReport(state=state, placement=placement)])


@pytest.mark.parametrize(
    ("deployments", "expected"),
    [
        ([], set()),
        ([deployment(READY, S)], set()),
        ([deployment(READY, A)], {(S, A)}),
        ([deployment(LOADING, A)], set()),
        ([deployment(READY, A, B)], {(A, B), (S, A), (S, B)}),
        ([deployment(LOADING, A, B)], {(A, B)}),
        ([deployment(FAILED, A, B)], set()),
        ([deployment(READY, A), deployment(READY, B, C)], {(S, A), (B, C), (S, B), (S, C)}),
    ],
    ids=[
        "nothing is deployed",
        "on the scheduler node itself",
        "on another node",
        "not yet ready, on one node",
        "over two nodes",
        "over two nodes, not yet ready",
        "one that has ended",
        "two of them",
    ],
)
def test_pairs_in_use(deployments: list[cluster_pb2.Deployment], expected: set[tuple[str, str]]) -> None:
    assert pairs_in_use(S, deployments) == {frozenset(one) for one in expected}
