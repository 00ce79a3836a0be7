"""What the simulated scheduler writes down, which outlives it. It breaks when a write contradicts what happened."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from simulation.runner_world import DEAD, KV_TOKENS, Broken, R, Runner
from thunderline.cluster import InstanceId, RankId
from thunderline.scheduler import actions
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish

EPOCHS_KEPT = 50


class Disk:
    """`runners` are the truth that it is compared with. Times are those of the scheduler's clock."""

    def __init__(self, runners: Collection[Runner]) -> None:
        self._runners = runners
        self.last_epoch = 0
        self.wishes: dict[InstanceId, Wish] = {}
        # Everything that ever was there, for the laws.
        self.history: dict[InstanceId, list[Epoch]] = {}

    def deploy(self, instance: InstanceId, name: str, at_s: float) -> None:
        self.wishes[instance] = Wish(Spec(name, f"org/{name}", KV_TOKENS), instance, at_s)
        self.history[instance] = []

    def forget(self, instance: InstanceId) -> str:
        """The name of the deployment that it was."""
        return self.wishes.pop(instance).spec.name

    def memory_bytes(self, rank: RankId) -> int:
        """What its epoch was placed with; 0 for one that is not there."""
        wish = self.wishes.get(rank.instance)
        return next((one.memory_bytes for one in wish.epochs if one.number == rank.epoch), 0) if wish else 0

    def begin(self, start: actions.StartEpoch, at_s: float) -> int:
        """The number of the epoch."""
        instance = start.instance
        wish = self.wishes[instance]
        if wish.current is not None:
            raise Broken(f"epoch {wish.current.number} of {instance} lives, and another is started")
        self.last_epoch += 1
        newest = wish.epochs[-1].number if wish.epochs else 0
        if self.last_epoch <= newest:
            raise Broken(f"epoch {self.last_epoch} of {instance} follows {newest}")
        epoch = Epoch(self.last_epoch, at_s, start.node, KV_TOKENS, start.memory_bytes, digest=start.digest)
        self.wishes[instance] = replace(wish, epochs=(*wish.epochs, epoch)[-EPOCHS_KEPT:])
        self.history[instance].append(epoch)
        return epoch.number

    def change(self, instance: InstanceId, number: int, **values: Any) -> None:
        """Writes an epoch down; one that is over only learns that it had answered."""
        wish = self.wishes.get(instance)
        before = next((one for one in wish.epochs if one.number == number), None) if wish else None
        if wish is None or before is None or (before.is_over and "answered" not in values):
            return
        after = replace(before, **values)
        self.wishes[instance] = replace(wish, epochs=tuple(after if one is before else one for one in wish.epochs))
        self.history[instance] = [after if one.number == number else one for one in self.history[instance]]

    def end(self, instance: InstanceId, number: int, cause: Cause, at_s: float) -> None:
        rank_id = RankId(instance, number, 0)
        for runner in self._runners:
            rank = runner.known.get(rank_id)
            state = R.ABSENT if rank is None else rank.view.state
            # A start that a former life of the scheduler sent may arrive after the answer: it is ended when it is seen.
            is_late_start = cause == actions.UNDEPLOYED and state in {R.STARTING, R.PREPARED}
            if state not in DEAD and cause.name != "PHASE_DEADLINE" and not is_late_start:
                raise Broken(f"epoch {number} of {instance} is given up although its rank is {state.name}")
        deaths = [runner.deaths[rank_id] for runner in self._runners if rank_id in runner.deaths]
        if cause.name in {"SIGNAL", "LOAD_FAILED"} and deaths != [cause.state]:
            raise Broken(f"{rank_id} is written down as {cause}, and what happened was {deaths}")
        self.change(instance, number, ended_s=at_s, cause=cause)
