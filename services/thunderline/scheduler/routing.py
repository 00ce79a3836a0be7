"""Which deployments a request's word means, and whether it may go to one now, must wait, or is refused. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from functools import lru_cache

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import (
    ClusterError,
    CrashLoop,
    NoReadyInstance,
    NotFound,
    PlacementImpossible,
    RequestPoisoned,
)
from thunderline.scheduler.values import DeploymentState, Standing, Wish

# When to come back after a refusal for the queue wait.
RETRY_AFTER_S = 2.0
# Ranks lost under a request since its last new token: from the first on it runs alone, from the second on not at all.
ALONE_FROM_COUNT, POISONED_FROM_COUNT = 2, 3
# It waits for those who run, who may take minutes. Nobody new is let in there meanwhile, but no longer than this, and
# from the begin of one such turn to that of the next the others get the rest of this time.
ALONE_WAIT_S, ALONE_AGAIN_S = 10.0, 30.0
# It holds the others back until its first new token, but no longer than this; only those like it wait on.
ALONE_HOLD_S = 60.0
# What a request is taken for that does not say: English text, and an answer of usual length.
BYTES_PER_TOKEN, ANSWER_TOKENS = 4, 512
# Who is not READY, the likeliest to become it first.
HOPE = (
    DeploymentState.READY,
    DeploymentState.REPAIRING,
    DeploymentState.STARTING,
    DeploymentState.WAITING,
    DeploymentState.CRASH_LOOP,
    DeploymentState.IMPOSSIBLE,
)


class Kind(IntEnum):
    """Whose turn it is first."""

    ALONE = 0  # A resume that ranks were lost under. First, so that on a fresh instance it harms nobody else.
    RESUMED = 1
    NEW = 2


class Way(Enum):
    GO = auto()
    WAIT_FOR_ROOM = auto()  # READY, and full or held for another: until the request's own deadline.
    WAIT_FOR_READY = auto()  # Until the queue wait is over; a resume until its deadline.


@dataclass(frozen=True, slots=True)
class Door:
    """A deployment that a word means. `kv_budget_tokens` 0 is not known."""

    name: str
    instance: InstanceId
    standing: Standing
    kv_budget_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A door, and who is behind it. `is_open`: whether this request may go in beside them."""

    door: Door
    request_count: int = 0
    tokens: int = 0
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """What a choice depends on. `tokens` is a guess; `needed_tokens` of KV are certain, or 0."""

    tokens: int = 0
    needed_tokens: int = 0
    # Who has the sequence of a resume, as far as that is known.
    parked_at: InstanceId | None = None


UNKNOWN = Request()


def request(
    prompt_token_count: int, prompt_bytes: int, resume_token_count: int, max_tokens: int, parked_at: InstanceId | None
) -> Request:
    """A prompt that is not tokenized yet has a count of 0; `max_tokens` 0 is as many as there is room for."""
    tokens = (prompt_token_count or prompt_bytes // BYTES_PER_TOKEN) + (max_tokens or ANSWER_TOKENS)
    needed = prompt_token_count + max(max_tokens, resume_token_count + 1) if prompt_token_count else 0
    return Request(tokens, needed, parked_at)


@lru_cache(maxsize=256)
def default_name(model: str) -> str:
    """The model's last path part, lower case, with safe characters."""
    last = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9._-]", "-", last).strip(".-_")[:64] or "model"


def meant(word: str, wishes: Iterable[Wish]) -> list[Wish]:
    """The deployments that may answer a word, the one that bears it first.

    A model's default name means every deployment of this model, any other name the one that bears it. A default name
    that several models share and no deployment bears means none: an answer never comes from a guessed model.
    """
    known = list(wishes)
    bearer = next((wish for wish in known if wish.spec.name == word), None)
    if bearer is not None and default_name(bearer.spec.model) != word:
        return [bearer]
    models = {_model(one) for one in ([bearer] if bearer else known) if default_name(one.spec.model) == word}
    if len(models) != 1:
        return []
    return sorted((one for one in known if _model(one) in models), key=lambda one: one.spec.name != word)


def _model(wish: Wish) -> str:
    return wish.spec.model.rstrip("/")


def choose(word: str, candidates: Sequence[Candidate], request: Request) -> tuple[Way, Door]:
    """What a request gets, and at which door: where it goes, or for whom there is most hope.

    A resume goes to the sequence that is parked; every other request to who has the fewest tokens outstanding. Raises
    NotFound, CrashLoop, PlacementImpossible: those at once, when no deployment of the word can get READY by itself.
    """
    fit = fitting([one.door for one in candidates], request)
    if not fit:
        raise NotFound(f"the model {word!r} is not deployed; `thunderline deployments` lists what is", param="model")
    best = min(fit, key=lambda door: HOPE.index(door.standing.state))
    if best.standing.state is DeploymentState.CRASH_LOOP:
        raise CrashLoop(sentence(best.name, best.standing))
    if best.standing.state is DeploymentState.IMPOSSIBLE:
        raise PlacementImpossible(sentence(best.name, best.standing))
    if not is_ready(best):
        return Way.WAIT_FOR_READY, best
    ready = [one for one in candidates if one.is_open and one.door in fit and is_ready(one.door)]
    if not ready:
        return Way.WAIT_FOR_ROOM, best
    found = min(ready, key=lambda one: (one.door.instance != request.parked_at, one.tokens, one.request_count))
    return Way.GO, found.door


def is_ready(door: Door) -> bool:
    return door.standing.state is DeploymentState.READY


def fitting(doors: Sequence[Door], request: Request) -> list[Door]:
    """Those that can hold the request: the others would refuse it for good. All, where that is so everywhere."""
    deployed = [door for door in doors if door.standing.state is not DeploymentState.UNDEPLOYING]
    fit = [door for door in deployed if not 0 < door.kv_budget_tokens < request.needed_tokens]
    return fit or deployed


def kind(resume: bool, lost_rank_count: int) -> Kind:
    """Raises RequestPoisoned: its client should have ended it."""
    if lost_rank_count >= POISONED_FROM_COUNT:
        raise RequestPoisoned(f"{lost_rank_count} ranks ended under this request without a new token between")
    if lost_rank_count >= ALONE_FROM_COUNT:
        return Kind.ALONE
    return Kind.RESUMED if resume else Kind.NEW


def may_go_alone(other_count: int) -> bool:
    """Whether a request that runs alone goes now. Who went alone before and spoke is not counted, and no other.

    However long it has waited: who runs beside it could lose a rank by it.
    """
    return other_count == 0


def turn_begun_s(last_s: float | None, now_s: float, again_s: float = ALONE_AGAIN_S) -> float:
    """When the turn began in which an instance is kept free for one that waits to be alone there: the last, or now."""
    return now_s if last_s is None or now_s - last_s >= again_s else last_s


def is_kept_free(turn_s: float | None, now_s: float, wait_s: float = ALONE_WAIT_S) -> bool:
    """Whether nobody new is let in at an instance for which one waits that is to be alone there."""
    return turn_s is not None and now_s - turn_s < wait_s


def may_pass_a_silent_one(kind: Kind, ran_s: float, hold_s: float = ALONE_HOLD_S) -> bool:
    """Whether a request goes beside one that went alone and has not spoken: of two suspects one may be innocent."""
    return ran_s >= hold_s and kind is not Kind.ALONE


def gives_up_s(arrived_s: float, away_since_s: float, queue_wait_s: float) -> float:
    """When a new request has waited long enough for READY: its wait for room is not counted."""
    return max(arrived_s, away_since_s) + queue_wait_s


def waited_in_vain(door: Door) -> ClusterError:
    """What the queue wait ends with."""
    return NoReadyInstance(sentence(door.name, door.standing), retry_after_s=RETRY_AFTER_S)


def sentence(name: str, standing: Standing) -> str:
    """The deployment's one sentence."""
    return f"{name} is {standing.state.name}: {standing.reason}"
