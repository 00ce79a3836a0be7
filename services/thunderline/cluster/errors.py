"""Errors that a caller can act on, each with a stable reason. Anything else is a bug and becomes INTERNAL_ERROR.

* ClusterError
  + NotFound               MODEL_NOT_FOUND
  + InvalidRequest         INVALID_REQUEST
    x ContextLengthExceeded  CONTEXT_LENGTH_EXCEEDED
  + Full                   QUEUE_FULL
  + Unavailable            (base of what a later try may answer)
    x NoReadyInstance        NO_READY_INSTANCE
    x InstanceFailed         INSTANCE_FAILED      resumable
    x RankHung               RANK_HUNG            resumable
    x EngineReset            ENGINE_RESET         resumable
    x Draining               DRAINING             resumable
    x StoreUnavailable       STORE_UNAVAILABLE
    x HubUnreachable         HUB_UNREACHABLE
    x Unreachable            UNREACHABLE          resumable: no ErrorInfo, the peer died or cannot be dialled
  + Refused                (base of what only another wish may answer)
    x PlacementImpossible    PLACEMENT_IMPOSSIBLE
    x CrashLoop              CRASH_LOOP
    x NameTaken              NAME_TAKEN
    x WrongStore             WRONG_STORE
    x StaleEpoch             STALE_EPOCH
    x EpochConflict          EPOCH_CONFLICT
    x LinkInUse              LINK_IN_USE
  + Superseded             SUPERSEDED
  + RequestPoisoned        REQUEST_POISONED
  + DeadlinePassed         DEADLINE
  + Unauthenticated        UNAUTHENTICATED
  + NotOffered             NOT_OFFERED
  + InternalError          INTERNAL_ERROR
"""

from typing import ClassVar

# A fact of an InstanceFailed whose rank ended under the request: with it the request may be to blame.
RANK_LOST_FACT = "rank_lost"


class ClusterError(Exception):
    """Base class. The message is one sentence for the operator; `facts` are short strings for programs."""

    reason: ClassVar[str] = ""
    # Whether the same request may go on elsewhere from the tokens already delivered.
    resumable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **facts: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.facts = facts

    @property
    def param(self) -> str | None:
        """The request's field that is to blame, by its API name."""
        return self.facts.get("param")


class NotFound(ClusterError):
    """The model, deployment or node named in the request is not known."""

    reason = "MODEL_NOT_FOUND"


class InvalidRequest(ClusterError):
    """The request is wrong in itself: `param` names the field."""

    reason = "INVALID_REQUEST"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the context or the KV budget."""

    reason = "CONTEXT_LENGTH_EXCEEDED"


class Full(ClusterError):
    """A bounded queue is full; `retry_after_s` says when to come back."""

    reason = "QUEUE_FULL"


class Unavailable(ClusterError):
    """Nothing answers now; a later try may be answered."""


class NoReadyInstance(Unavailable):
    """The queue wait passed without a READY instance."""

    reason = "NO_READY_INSTANCE"


class InstanceFailed(Unavailable):
    """A rank of the instance ended under the request."""

    reason = "INSTANCE_FAILED"
    resumable = True


class RankHung(Unavailable):
    """A rank made no step within its deadline."""

    reason = "RANK_HUNG"
    resumable = True


class EngineReset(Unavailable):
    """The engine raised and was made anew; its sequences are gone."""

    reason = "ENGINE_RESET"
    resumable = True


class Draining(Unavailable):
    """The role is stopping and takes nothing new."""

    reason = "DRAINING"
    resumable = True


class StoreUnavailable(Unavailable):
    """The scheduler's store cannot be written."""

    reason = "STORE_UNAVAILABLE"


class HubUnreachable(Unavailable):
    """Hugging Face did not answer."""

    reason = "HUB_UNREACHABLE"


class Unreachable(Unavailable):
    """The peer died or cannot be dialled."""

    reason = "UNREACHABLE"
    resumable = True


class Refused(ClusterError):
    """Trying the same again cannot help."""


class PlacementImpossible(Refused):
    """The model cannot run on this cluster."""

    reason = "PLACEMENT_IMPOSSIBLE"


class CrashLoop(Refused):
    """The deployment crashed too often in a row."""

    reason = "CRASH_LOOP"


class NameTaken(Refused):
    """Another deployment has this name."""

    reason = "NAME_TAKEN"


class WrongStore(Refused):
    """The runner obeys another scheduler store."""

    reason = "WRONG_STORE"


class StaleEpoch(Refused):
    """The runner has started a newer epoch of the instance."""

    reason = "STALE_EPOCH"


class EpochConflict(Refused):
    """The epoch was started with another placement."""

    reason = "EPOCH_CONFLICT"


class LinkInUse(Refused):
    """An instance serves over the link: a measurement would slow it."""

    reason = "LINK_IN_USE"


class Superseded(ClusterError):
    """A newer call with the same request id took the request over."""

    reason = "SUPERSEDED"


class RequestPoisoned(ClusterError):
    """The request ended too many ranks."""

    reason = "REQUEST_POISONED"


class DeadlinePassed(ClusterError):
    """The request's deadline passed."""

    reason = "DEADLINE"


class Unauthenticated(ClusterError):
    """A key or certificate is missing or wrong."""

    reason = "UNAUTHENTICATED"


class NotOffered(ClusterError):
    """The RPC is in the contract and a later version fills it."""

    reason = "NOT_OFFERED"


class InternalError(ClusterError):
    """A bug of ours."""

    reason = "INTERNAL_ERROR"


def has_lost_a_rank(error: ClusterError) -> bool:
    """Whether a rank died, hung or reset its engine under the request that ended with this."""
    return isinstance(error, RankHung | EngineReset) or RANK_LOST_FACT in error.facts


def _tree(kind: type[ClusterError]) -> list[type[ClusterError]]:
    return [kind] + [leaf for child in kind.__subclasses__() for leaf in _tree(child)]


BY_REASON: dict[str, type[ClusterError]] = {kind.reason: kind for kind in _tree(ClusterError) if kind.reason}
