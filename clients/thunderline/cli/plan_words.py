"""Strategies and backends as people write and read them. Pure."""

from thunderline.v1 import planning_pb2

_STRATEGY, _BACKEND = "SPLIT_STRATEGY_", "DISTRIBUTED_BACKEND_"
STRATEGIES = {
    name.removeprefix(_STRATEGY).lower(): number
    for name, number in planning_pb2.SplitStrategy.items()
    if number != planning_pb2.SPLIT_STRATEGY_UNSPECIFIED
}
BACKENDS = {
    name.removeprefix(_BACKEND).lower(): number
    for name, number in planning_pb2.DistributedBackend.items()
    if number != planning_pb2.DISTRIBUTED_BACKEND_UNSPECIFIED
}


def way(strategy: "planning_pb2.SplitStrategy.ValueType", backend: "planning_pb2.DistributedBackend.ValueType") -> str:
    """ "tensor over jaccl"; what is unset is left out."""
    told = [
        planning_pb2.SplitStrategy.Name(strategy).removeprefix(_STRATEGY).lower() if strategy else "",
        planning_pb2.DistributedBackend.Name(backend).removeprefix(_BACKEND).lower() if backend else "",
    ]
    return " over ".join(one for one in told if one)
