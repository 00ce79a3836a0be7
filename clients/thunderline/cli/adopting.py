"""`cluster adopt`: shows whom the runners obey and what they hold, then has them obey this scheduler's store."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from thunderline.cli import roles, saying
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, Unreachable
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id
from thunderline.process.trust import Wallet
from thunderline.v1 import cluster_pb2, scheduler_pb2

FATES = {
    scheduler_pb2.FATE_REBUILT: "kept",
    scheduler_pb2.FATE_KNOWN: "kept",
    scheduler_pb2.FATE_ENDED: "ENDED",
}
NOBODY = "every runner obeys this store already: there is nothing to adopt"
UNHEARD = "no runner is heard yet, or not all: look into the runner's log, and run this once more"


class NotAdopted(Exception):
    """Nothing was changed; one line for the operator."""


async def look(target: str, wallet: Wallet) -> scheduler_pb2.AdoptRunnersResponse:
    """What there is to adopt. Raises Unreachable when no scheduler runs, ClusterError."""
    async with SchedulerClient(target, wallet) as scheduler:
        return await scheduler.adopt_runners({})


async def adopt(
    target: str, wallet: Wallet, seen: scheduler_pb2.AdoptRunnersResponse
) -> scheduler_pb2.AdoptRunnersResponse:
    """Adopts what was shown, as it was shown. Raises ClusterError."""
    async with SchedulerClient(target, wallet) as scheduler:
        return await scheduler.adopt_runners({one.node_id: one.store_id for one in seen.runners})


def show(seen: scheduler_pb2.AdoptRunnersResponse) -> None:
    """Both stores, and what becomes of everything."""
    saying.out.print(f"this scheduler's store: {contents(seen.store)}", markup=False)
    for runner in seen.runners:
        title = f"the runner of node {runner.node_id} obeys another store: {runner.store_id}"
        rows = [_row(held) for held in runner.held]
        saying.table(
            title, ("deployment", "rank", "state", "pid", "will be", "why"), rows, f"{title}; it holds nothing"
        )


def contents(store: scheduler_pb2.StoreContents) -> str:
    names = ", ".join(spec.name for spec in store.deployments)
    return f"{store.store_id}, of node {store.node_id}, deployments: {names or 'none'}"


def _row(held: scheduler_pb2.HeldRank) -> Sequence[str]:
    lives = held.state != cluster_pb2.RANK_STATE_ABSENT
    return (
        held.deployment.name or "none",
        f"{held.id.instance}-{held.id.epoch}-{held.id.rank}",
        cluster_pb2.RankState.Name(held.state).removeprefix("RANK_STATE_") if lives else "no process",
        str(held.pid) if lives and held.pid else "",
        FATES.get(held.fate, ""),
        held.why,
    )


def tell(done: scheduler_pb2.AdoptRunnersResponse) -> None:
    for runner in done.runners:
        saying.out.print(f"the runner of node {runner.node_id} obeys store {done.store.store_id} now", markup=False)
        for held in runner.held:
            name = held.deployment.name or f"{held.id.instance}-{held.id.epoch}-{held.id.rank}"
            saying.out.print(f"  {name}: {FATES.get(held.fate, '')}: {held.why}", markup=False)


def agreed(question: str, yes: bool) -> None:
    """Raises NotAdopted."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotAdopted("nothing was changed: run it once more with --yes")
    saying.err.print(f"{question} [y/N] ", end="", markup=False)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise NotAdopted("nothing was changed")


def adopt_copy(home: Path, yes: bool, json: bool) -> None:
    """A store that was copied here, while no scheduler runs on this home. Raises NotAdopted."""
    stores = roles.copied_store()
    try:
        node = node_id(home)
        seen: scheduler_pb2.StoreContents | None = stores.look(home)
        if seen is None or seen.node_id == node:
            which = "no scheduler's store" if seen is None else "no copied store"
            raise NotAdopted(f"no scheduler answers and {home} holds {which}: start `thunderline up` there first")
        if not json:
            saying.out.print(f"the store in {home}: {contents(seen)}", markup=False)
            saying.out.print(
                f"this is node {node}: the store was copied here, and no scheduler runs on it", markup=False
            )
        if not json or yes:
            agreed("make it this node's, under a new id, with these deployments?", yes)
            done: scheduler_pb2.StoreContents = stores.adopt(home, seen.store_id)
    except (CannotStart, ClusterError, OSError) as error:
        raise NotAdopted(f"{error}") from None
    if json:
        saying.as_json(done if yes else seen)
        return
    saying.out.print(f"the store in {home} is this node's now: {contents(done)}", markup=False)
    saying.out.print("`thunderline up` starts on it; one that runs already does so within seconds", markup=False)


def adopt_all(target: str, wallet: Wallet, home: Path, yes: bool, json: bool) -> None:
    """What the command does, on the scheduler node. Raises NotAdopted."""
    try:
        seen = asyncio.run(look(target, wallet))
    except Unreachable:
        adopt_copy(home, yes, json)
        return
    except ClusterError as error:
        raise NotAdopted(error.message) from None
    if not seen.runners and not seen.complete:
        raise NotAdopted(UNHEARD)
    if json and (not yes or not seen.runners):
        saying.as_json(seen)
        return
    if not json:
        show(seen)
    if not seen.runners:
        saying.out.print(NOBODY, markup=False)
        return
    agreed("have them obey this scheduler's store?", yes)
    try:
        done = asyncio.run(adopt(target, wallet, seen))
    except ClusterError as error:
        raise NotAdopted(f"not adopted: {error.message}") from None
    if json:
        saying.as_json(done)
    else:
        tell(done)
