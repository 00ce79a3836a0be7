"""`thunderline cluster adopt`: runners that obey another store come to obey this one, with what they run."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping

from thunderline.cluster import NodeId
from thunderline.cluster.errors import WrongStore
from thunderline.scheduler import adoption, wire
from thunderline.scheduler.adoption import Found
from thunderline.scheduler.control import Control
from thunderline.v1 import scheduler_pb2

# A scheduler that has just been started has not heard its runners yet.
HEARD_S = 3.0
# After a runner has obeyed, its view says so within this time.
SEEN_S = 2.0


class Takeover:
    def __init__(self, node: NodeId, control: Control, wish_count_max: int) -> None:
        self._node = node
        self._control = control
        self._wish_count_max = wish_count_max

    async def adopt(self, store_ids: Mapping[str, str]) -> scheduler_pb2.AdoptRunnersResponse:
        """Says what there is; adopts the runners that are named, each with the store that it was said to obey.

        Raises NotFound, WrongStore, StoreUnavailable, InstanceFailed, and what a runner refuses with.
        """
        control, runners = self._control, self._control.runners
        await self._until(lambda: runners.heard, HEARD_S)
        nodes = [NodeId(node) for node in sorted(store_ids)] or list(runners.refusals())
        answers = await asyncio.gather(*(runners.holding(node) for node in nodes))
        asked = [wire.found(node, answer) for node, answer in zip(nodes, answers, strict=True)]
        found = [one for one in asked if one.store != control.store_id]
        _check(found, store_ids)
        now_s = time.time()
        store = wire.store_contents(control.store_id, self._node, control.wishes())
        plan = adoption.plan(control.wishes(), found, now_s, self._wish_count_max)
        if store_ids and found:
            # First on disk: a scheduler that dies now finds them after its start, and adopts once more.
            await control.rebuild(plan)
            for one in found:
                await runners.adopt(one.node, one.store, plan.keep(one.node))
            for event in adoption.told(plan, found, now_s):
                control.events.add(event)
            await self._until(lambda: not runners.refusals().keys() & set(nodes), SEEN_S)
        return scheduler_pb2.AdoptRunnersResponse(
            store=store,
            runners=[wire.foreign_runner(one, plan.rulings[one.node]) for one in found],
            complete=runners.heard,
        )

    async def _until(self, look: Callable[[], object], timeout_s: float) -> None:
        """As long as it takes, at most: what follows says what it has found."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not look():
                    await self._control.changes.after(self._control.changes.version)


def _check(found: Collection[Found], store_ids: Mapping[str, str]) -> None:
    for one in found:
        if store_ids and one.store != store_ids[one.node]:
            raise WrongStore(
                f"the runner of node {one.node} obeys store {one.store or 'none'} now, not {store_ids[one.node]}: "
                "look again and run `thunderline cluster adopt` once more",
                store=one.store,
            )
