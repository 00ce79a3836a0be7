"""A store that was copied here: `thunderline cluster adopt` while no scheduler runs makes it this node's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from thunderline.cluster import NodeId
from thunderline.cluster.errors import WrongStore
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id
from thunderline.scheduler import wire
from thunderline.scheduler.events import Event, Kind
from thunderline.scheduler.store import Store
from thunderline.v1 import scheduler_pb2

# One that refuses to start again and again holds the store for a moment each time.
LOCK_S, LOCK_AGAIN_S = 3.0, 0.05


def look(home: Path) -> scheduler_pb2.StoreContents | None:
    """What it says of itself; None when there is none. Raises CannotStart, StoreUnavailable."""
    if not (home / "scheduler.db").exists():
        return None
    with _opened(home) as store:
        return _contents(store)


def adopt(home: Path, store_id: str) -> scheduler_pb2.StoreContents:
    """Makes the store that was looked at this node's; what it is then. Raises as `look`, and WrongStore."""
    with _opened(home) as store:
        if store.store_id != store_id or store.owner == store.node:
            raise WrongStore("it has changed meanwhile: look again and run `thunderline cluster adopt` once more")
        now_s = time.time()
        text = f"the store was a copy of {store_id}, of node {store.owner}; it has an id of its own now"
        done = "its deployments are kept; each is started here"
        store.take_over(now_s, Event(Kind.STORE_ADOPTED, f"node {store.node}", text, now_s, done=done))
        return _contents(store)


@contextmanager
def _opened(home: Path) -> Iterator[Store]:
    store = Retrying(
        stop=stop_after_delay(LOCK_S),
        wait=wait_fixed(LOCK_AGAIN_S),
        retry=retry_if_exception_type(CannotStart),
        reraise=True,
    )(Store, home, node_id(home), may_be_copied=True)
    try:
        yield store
    finally:
        store.close()


def _contents(store: Store) -> scheduler_pb2.StoreContents:
    return wire.store_contents(store.store_id, NodeId(store.owner), store.wishes())
