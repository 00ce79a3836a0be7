"""Going on with a request whose stream broke: what was delivered, what to ask next, when to give up. Pure.

One mutable object a request, without effects: a frozen one would copy every delivered token at each new one.
"""

from dataclasses import dataclass, field

from thunderline.cluster.errors import (
    ClusterError,
    DeadlinePassed,
    Full,
    InstanceFailed,
    RequestPoisoned,
    Unreachable,
    has_lost_a_rank,
)
from thunderline.v1 import cluster_pb2

# Attempts that brought no new token, one after the other.
FRUITLESS_COUNT_MAX = 8
WAIT_MIN_S, WAIT_MAX_S = 0.1, 2.0
# A request that nobody has had gives up when no scheduler can be reached for this long: a restart takes under 3 s.
UNREACHABLE_S = 10.0
# While none can be reached the waits grow with the outage, so that at most a fifth is added to it.
SHARE_OF_OUTAGE = 0.2
# An attempt that lasted longer had reached a scheduler, where it waited: a dial fails within a quarter of a second.
REACHED_S = 1.0
# Ranks lost in a row, without a new token, that make a request the culprit.
LOST_RANK_COUNT_MAX = 3


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask again after this time."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more is tried."""

    error: ClusterError


@dataclass
class HeldRequest:
    """A request as its holder sees it. `wish` has its id and seed; times are of one monotonic clock."""

    wish: cluster_pb2.Generation
    deadline_s: float
    prompt_token_ids: list[int] = field(default_factory=list)
    # Who had it last: its sequence may be parked there.
    instance: str = ""
    # Everything that was delivered.
    token_ids: list[int] = field(default_factory=list)
    finished: bool = False
    attempt_count: int = 0
    # All three since the last new token.
    fruitless_count: int = 0
    lost_rank_count: int = 0
    unreachable_since_s: float | None = None
    # Whether an instance has had it: from then on it is no new request.
    admitted: bool = False
    # Of the attempt under way: its start, whether anything was heard, and whether a new token was.
    begun_s: float = 0.0
    heard: bool = False
    fruitful: bool = False

    def __post_init__(self) -> None:
        self.lost_rank_count = self.wish.lost_rank_count

    def next_request(self, now_s: float) -> cluster_pb2.Generation:
        """Begins an attempt. The prompt is never rendered a second time."""
        self.attempt_count += 1
        self.begun_s = now_s
        self.heard = self.fruitful = False
        request = cluster_pb2.Generation()
        request.CopyFrom(self.wish)
        if self.prompt_token_ids:
            request.prompt_token_ids.ids[:] = self.prompt_token_ids
        request.resume_token_ids.extend(self.token_ids)
        request.lost_rank_count = self.lost_rank_count
        request.resume = self.wish.resume or self.admitted
        request.instance = self.instance or self.wish.instance
        return request

    def take(self, delta: cluster_pb2.GenerationDelta) -> bool:
        """Notes what came, takes out the prompt's ids if they were passed on before; whether the rest is any news."""
        self.heard = self.admitted = True
        self.unreachable_since_s = None
        self.instance = delta.instance or self.instance
        if self.prompt_token_ids:
            delta.ClearField("prompt_token_ids")
        self.prompt_token_ids.extend(delta.prompt_token_ids)
        if delta.token_ids:
            self.token_ids.extend(delta.token_ids)
            self.fruitful = True
            self.fruitless_count = self.lost_rank_count = 0
        self.finished = self.finished or bool(delta.finish_reason)
        return bool(delta.prompt_token_ids or delta.token_ids or delta.text or delta.finish_reason)

    def after(self, error: ClusterError | None, now_s: float) -> Resume | End:
        """What follows on the end of an attempt before the request's finish; None: it ended without an error."""
        error = error or InstanceFailed("the stream ended without a finish")
        # A queue that is full refuses new requests; one that an instance has had comes again.
        if not error.resumable and not (isinstance(error, Full) and (self.admitted or self.wish.resume)):
            return End(error)
        self._count(error, now_s)
        if self.lost_rank_count >= LOST_RANK_COUNT_MAX:
            return End(
                RequestPoisoned(
                    f"{self.lost_rank_count} ranks in a row ended or were reset under this request, without a new "
                    f"token between, so it is not tried again; the last: {error.message}"
                )
            )
        if self._used_up(now_s):
            return End(self._told(error))
        wait_s = self._wait_s(now_s)
        if now_s + wait_s >= self.deadline_s:
            return End(DeadlinePassed(f"the request's deadline passed before it could go on: {self._story(error)}"))
        return Resume(wait_s)

    def _count(self, error: ClusterError, now_s: float) -> None:
        if isinstance(error, Unreachable) and not self.heard:
            # No instance had it, as far as can be seen: the scheduler may be restarting, and not for the first time.
            if self.unreachable_since_s is None or now_s - self.begun_s > REACHED_S:
                self.unreachable_since_s = now_s
            return
        self.unreachable_since_s = None
        self.admitted = True
        if not self.fruitful:
            self.fruitless_count += 1
        if has_lost_a_rank(error):
            self.lost_rank_count += 1

    def _used_up(self, now_s: float) -> bool:
        if self.unreachable_since_s is not None and not self.admitted:
            return now_s - self.unreachable_since_s >= UNREACHABLE_S
        return self.fruitless_count >= FRUITLESS_COUNT_MAX

    def _wait_s(self, now_s: float) -> float:
        if self.unreachable_since_s is not None:
            return min(WAIT_MAX_S, max(WAIT_MIN_S, SHARE_OF_OUTAGE * (now_s - self.unreachable_since_s)))
        return min(WAIT_MAX_S, WAIT_MIN_S * 2.0 ** max(0, self.fruitless_count - 1))

    def _told(self, error: ClusterError) -> ClusterError:
        """The same error, which says how often it was tried."""
        return type(error)(self._story(error), retry_after_s=error.retry_after_s, **error.facts)

    def _story(self, error: ClusterError) -> str:
        return f"{error.message} (tried {self.attempt_count} times; {len(self.token_ids)} tokens were delivered)"
