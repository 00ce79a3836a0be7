"""Which commands a runner obeys: one store, and no epoch older than the newest it started. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from thunderline.cluster import InstanceId, RankId, StoreId
from thunderline.cluster.errors import EpochConflict, StaleEpoch, WrongStore

# Placements of instances that ended long ago help nobody.
INSTANCE_COUNT_MAX = 200


class Goal(Enum):
    """Numbers are those of RankGoal in runner.proto."""

    PREPARED = 1
    READY = 2
    ABSENT = 3


@dataclass(frozen=True, slots=True)
class Started:
    """The newest epoch of an instance that was started here, with its placement as serialized bytes."""

    epoch: int
    placement: bytes


NO_STORE = StoreId("")


@dataclass(frozen=True, slots=True)
class Fence:
    """What a runner keeps on disk. An empty store obeys the first that commands.

    `forgotten` is the highest epoch of an instance that is not in `started` any more: a store counts the epochs of all
    its instances with one counter, so what is unknown and not above it is old.
    """

    store: StoreId = NO_STORE
    started: Mapping[InstanceId, Started] = field(default_factory=dict)
    forgotten: int = 0


class Verdict(Enum):
    START = auto()  # Start the rank's process, after the fence is on disk.
    CONTINUE = auto()  # The epoch is known: move its rank towards the goal, or only report.
    END = auto()


def judge(fence: Fence, store: StoreId, rank: RankId, goal: Goal, placement: bytes) -> tuple[Verdict, Fence]:
    """What to do with a command, and the fence after it.

    Raises WrongStore, StaleEpoch (facts: highest), EpochConflict. ABSENT is accepted for any epoch of our store; READY
    without a PREPARED before it starts the rank as well, and waits for PREPARED.
    """
    if fence.store and store != fence.store:
        raise WrongStore(
            f"this runner obeys store {fence.store}, not {store}; `thunderline cluster adopt` changes that",
            store=fence.store,
        )
    obeyed = replace(fence, store=store)
    if goal is Goal.ABSENT:
        return Verdict.END, obeyed
    known = fence.started.get(rank.instance)
    highest = fence.forgotten if known is None else known.epoch
    if rank.epoch > highest or (known is None and not fence.forgotten):
        return Verdict.START, _with(obeyed, rank, placement)
    if known is None or rank.epoch < known.epoch:
        raise StaleEpoch(
            f"epoch {rank.epoch} of {rank.instance} is older than {highest}, the newest started here",
            highest=str(highest),
        )
    if placement != known.placement:
        raise EpochConflict(f"epoch {rank.epoch} of {rank.instance} was started here with another placement")
    return Verdict.CONTINUE, obeyed


def _with(fence: Fence, rank: RankId, placement: bytes) -> Fence:
    """The fence after this start; the instances with the oldest epochs are forgotten beyond the bound."""
    others = sorted(
        ((name, started) for name, started in fence.started.items() if name != rank.instance),
        key=lambda item: item[1].epoch,
        reverse=True,
    )
    kept, old = others[: INSTANCE_COUNT_MAX - 1], others[INSTANCE_COUNT_MAX - 1 :]
    started = {**dict(kept), rank.instance: Started(rank.epoch, placement)}
    forgotten = max([fence.forgotten, *(one.epoch for _, one in old)])
    return replace(fence, started=started, forgotten=forgotten)
