"""Which commands a runner obeys: one store, and no epoch older than the newest it started. Pure."""

from collections.abc import Collection, Mapping
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
    # Its rank was told to end because its runner was: nothing is wrong with it.
    stopped: bool = False


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

    @property
    def highest(self) -> int:
        """The highest epoch that was ever started here; 0 for none."""
        return max([self.forgotten, *(one.epoch for one in self.started.values())])

    def has_stopped(self, rank: RankId) -> bool:
        """Whether it ended, or was about to, together with the runner before us."""
        started = self.started.get(rank.instance)
        return started is not None and started.epoch == rank.epoch and started.stopped


class Verdict(Enum):
    START = auto()  # Start the rank's process, after the fence is on disk.
    CONTINUE = auto()  # The epoch is known: move its rank towards the goal, or only report.
    END = auto()


def judge(
    fence: Fence, store: StoreId, rank: RankId, goal: Goal, placement: bytes, forget: bool = False
) -> tuple[Verdict, Fence]:
    """What to do with a command, and the fence after it.

    Raises WrongStore, StaleEpoch (facts: highest), EpochConflict. ABSENT is accepted for any epoch of our store, and
    with `forget` the instance is not kept any longer; READY without a PREPARED before it starts the rank as well, and
    waits for PREPARED.
    """
    if fence.store and store != fence.store:
        raise WrongStore(
            f"this runner obeys store {fence.store}, not {store}; `thunderline cluster adopt` changes that",
            store=fence.store,
        )
    obeyed = replace(fence, store=store)
    if goal is Goal.ABSENT:
        kept = fence.started.keys() - {rank.instance} if forget else fence.started.keys()
        return Verdict.END, _keeping(obeyed, kept)
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


def adopt(fence: Fence, store: StoreId, former: StoreId, keep: Collection[RankId]) -> Fence:
    """The fence that obeys another store; of the instances only those whose newest epoch `keep` names stay in it.

    The same once more changes nothing. Raises WrongStore when `former` is not the one obeyed.
    """
    if store == fence.store:
        return fence
    if former != fence.store:
        raise WrongStore(
            f"this runner obeys store {fence.store or 'none'}, not {former or 'none'}: look again and run "
            "`thunderline cluster adopt` once more",
            store=fence.store,
        )
    epochs = {(rank.instance, rank.epoch) for rank in keep}
    kept = {name for name, one in fence.started.items() if (name, one.epoch) in epochs}
    return replace(_keeping(fence, kept), store=store)


def leave(fence: Fence, store: StoreId) -> Fence:
    """The fence of a node that has left this store (protocols A, point 3): nobody may command what it started here."""
    return replace(_keeping(fence, ()), store=NO_STORE) if fence.store == store else fence


def stop(fence: Fence, ranks: Collection[RankId]) -> Fence:
    """These ranks, of newest epochs, end together with their runner: the next one has to know that."""
    epochs = {(rank.instance, rank.epoch) for rank in ranks}
    started = {
        name: replace(one, stopped=one.stopped or (name, one.epoch) in epochs) for name, one in fence.started.items()
    }
    return replace(fence, started=started)


def _keeping(fence: Fence, instances: Collection[InstanceId]) -> Fence:
    """Without the others; their epochs stay stale."""
    dropped = [one.epoch for name, one in fence.started.items() if name not in instances]
    started = {name: one for name, one in fence.started.items() if name in instances}
    return replace(fence, started=started, forgotten=max([fence.forgotten, *dropped]))
