"""Who may call which RPC: one table over all of them. Pure.

What a caller is, its certificate says (cluster/certificates.py); what that may call, this table says, and nothing
else does: protocols H, point 3.
"""

from enum import Enum

from thunderline.cluster.errors import Unauthenticated


class Caller(Enum):
    """What a caller is to the cluster. The values of the first three stand in certificates."""

    SCHEDULER = "scheduler"  # A process of the scheduler node: the only one that commands ranks.
    MEMBER = "member"  # A process of any other node.
    CLIENT = "client"  # A program from outside with a certificate of `cluster client NAME`.
    LOCAL = "local"  # Over loopback or a Unix socket, without TLS: this machine's own user.
    STRANGER = "stranger"  # TLS without a certificate: let in at the enrolment port only.


CERTIFIED = frozenset({Caller.SCHEDULER, Caller.MEMBER, Caller.CLIENT})

_LOCAL = frozenset({Caller.LOCAL})
_COMMANDS = _LOCAL | {Caller.SCHEDULER}
_NODES = _COMMANDS | {Caller.MEMBER}
_ALL = _NODES | {Caller.CLIENT}

_BY_SERVICE: dict[str, dict[str, frozenset[Caller]]] = {
    "thunderline.v1.DiscoveryService": {
        "GetRoster": _NODES,
        "WatchRoster": _NODES,
        "ExchangeCard": _NODES,
        # A plain member for itself only: discovery looks whose certificate it is.
        "LeaveCluster": _NODES,
    },
    "thunderline.v1.TopologyService": {
        "GetTopology": _NODES,
        "WatchTopology": _NODES,
        "WatchObservations": _NODES,
        "MeasureLink": _NODES,
        "PrepareMeasurement": _NODES,
    },
    # All of it but AdoptRunners is what clients have a certificate for.
    "thunderline.v1.SchedulerService": {
        "Generate": _ALL,
        "Deploy": _ALL,
        "Undeploy": _ALL,
        "ListDeployments": _ALL,
        "PlanPlacement": _ALL,
        "GetCluster": _ALL,
        "WatchCluster": _ALL,
        "WatchEvents": _ALL,
        # It changes whom runners obey.
        "AdoptRunners": _COMMANDS,
        "DrainNode": _ALL,
    },
    "thunderline.v1.RunnerService": {
        # What moves ranks, or puts work on them.
        "SetRank": _COMMANDS,
        "AdoptStore": _COMMANDS,
        "Generate": _COMMANDS,
        "CancelGeneration": _COMMANDS,
        "WatchRanks": _COMMANDS,
        # Between the runners of one instance.
        "FollowOperations": _NODES,
        "GatherBytes": _NODES,
        # Models on this node's disk.
        "AuditModel": _NODES,
        "FetchModel": _NODES,
        "ListModels": _NODES,
    },
    # The runner's Unix socket.
    "thunderline.v1.RankService": {"Attach": _LOCAL},
    # A joiner has a token instead of a certificate; a node that has one renews it.
    "thunderline.v1.EnrollmentService": {"SignCertificate": _NODES | {Caller.STRANGER}},
    # Every role serves these two.
    "grpc.health.v1.Health": {"Check": _ALL, "Watch": _ALL, "List": _ALL},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _ALL},
}

# By the name that gRPC calls with.
MAY_CALL: dict[str, frozenset[Caller]] = {
    f"/{service}/{method}": callers for service, methods in _BY_SERVICE.items() for method, callers in methods.items()
}


def check(method: str, caller: Caller, who: str) -> None:
    """Raises Unauthenticated. `who` is for the message; a method that the table does not name nobody may call."""
    allowed = MAY_CALL.get(method, frozenset())
    if caller not in allowed:
        names = ", ".join(sorted(one.value for one in allowed)) or "nobody"
        raise Unauthenticated(f"{who} may not call {method}: its certificate is a {caller.value}'s; allowed: {names}")
