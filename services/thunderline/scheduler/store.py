"""What the scheduler must not forget: deployments, epochs, their counter, and events. SQLite, one process at a time."""

import contextlib
import fcntl
import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thunderline.cluster import InstanceId, NodeId, StoreId
from thunderline.cluster.errors import StoreUnavailable
from thunderline.cluster.ranks import RankState
from thunderline.process.entry import CannotStart
from thunderline.scheduler.adoption import Plan
from thunderline.scheduler.events import Event
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish

SCHEMA_VERSION = 2
# Epochs that are over and that are remembered, per instance.
EPOCH_COUNT_MAX = 50
EVENT_COUNT_MAX = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deployments (
  instance TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL, kv_budget_tokens INTEGER NOT NULL,
  fresh_since_s REAL NOT NULL, undeploying INTEGER NOT NULL, fresh_above INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS epochs (
  number INTEGER PRIMARY KEY, instance TEXT NOT NULL REFERENCES deployments ON DELETE CASCADE, node TEXT NOT NULL,
  kv_budget_tokens INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, placement BLOB NOT NULL, started_s REAL NOT NULL,
  ready_s REAL, ended_s REAL, cause TEXT, answered INTEGER NOT NULL DEFAULT 0, digest TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL, time_s REAL NOT NULL,
  request_count INTEGER NOT NULL, done TEXT NOT NULL
) STRICT;
"""


# What makes a store of the version before this one of today's.
_MIGRATION = (
    "ALTER TABLE deployments ADD COLUMN fresh_above INTEGER NOT NULL DEFAULT 0",
    "UPDATE deployments SET fresh_above = COALESCE((SELECT MAX(number) FROM epochs "
    "WHERE epochs.instance = deployments.instance AND started_s < fresh_since_s), 0)",
    "UPDATE meta SET value = '2' WHERE key = 'version'",
)


class Store:
    """Blocking; belongs to one thread. Every method raises StoreUnavailable when the disk does not take or give it."""

    def __init__(self, folder: Path, node: NodeId, may_be_copied: bool = False) -> None:
        """Opens or makes the store. Raises CannotStart when another scheduler holds it.

        Another node's is refused as well, unless `may_be_copied`: then `owner` says whose it is.
        """
        self.node = node
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "scheduler.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise CannotStart(f"another scheduler holds {folder / 'scheduler.db'}") from None
        path = folder / "scheduler.db"
        try:
            # Opened by whoever starts the role, used by its writer thread alone.
            self._db = sqlite3.connect(path, isolation_level=None, timeout=2, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
            self._know(path, node, may_be_copied)
        except (sqlite3.Error, StoreUnavailable) as error:
            self._lock.close()
            raise CannotStart(f"{path} cannot be used: {error}") from None
        except CannotStart:
            self.close()
            raise

    def _know(self, path: Path, node: NodeId, may_be_copied: bool) -> None:
        known = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        if known.get("version") == "1":
            with self._transaction() as db:
                for statement in _MIGRATION:
                    db.execute(statement)
            known["version"] = "2"
        if known and known.get("version") != str(SCHEMA_VERSION):
            raise CannotStart(f"{path} has version {known.get('version')}, this thunderline knows {SCHEMA_VERSION}")
        if known and known["node_id"] != node and not may_be_copied:
            raise CannotStart(
                f"{path} belongs to node {known['node_id']}, this is {node}: it was copied; "
                "run `thunderline cluster adopt` with this home to make it this node's"
            )
        if not known:
            fresh = {"version": SCHEMA_VERSION, "store_id": uuid.uuid4(), "node_id": node, "last_epoch": 0}
            with self._transaction() as db:
                db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, str(value)) for key, value in fresh.items()])
            known = {key: str(value) for key, value in fresh.items()}
        self.store_id = StoreId(known["store_id"])
        self.owner = NodeId(known["node_id"])

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A COMMIT that fails may leave its transaction open: the next one could not begin.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the scheduler's store cannot be written: {error}") from None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the scheduler's store cannot be read: {error}") from None

    def wishes(self) -> list[Wish]:
        with self._reading() as db:
            rows = db.execute("SELECT * FROM deployments ORDER BY name").fetchall()
            return [
                Wish(
                    Spec(name, model, kv), InstanceId(instance), fresh, bool(undeploying), self._epochs(instance), above
                )
                for instance, name, model, kv, fresh, undeploying, above in rows
            ]

    def _epochs(self, instance: str) -> tuple[Epoch, ...]:
        columns = "number, started_s, node, kv_budget_tokens, memory_bytes, ready_s, ended_s, cause, answered, digest"
        query = f"SELECT {columns} FROM epochs WHERE instance = ? ORDER BY number"
        return tuple(
            Epoch(number, started, NodeId(node), kv, memory, ready, ended, _cause(cause), bool(answered), digest)
            for number, started, node, kv, memory, ready, ended, cause, answered, digest in self._db.execute(
                query, (instance,)
            )
        )

    def placement(self, epoch: int) -> bytes:
        """The serialized Placement of an epoch; empty when it is forgotten."""
        with self._reading() as db:
            row = db.execute("SELECT placement FROM epochs WHERE number = ?", (epoch,)).fetchone()
        return bytes(row[0]) if row else b""

    def put(self, wish: Wish) -> None:
        """Writes a deployment, without its epochs."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO deployments VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance) DO UPDATE SET "
                "fresh_since_s = excluded.fresh_since_s, undeploying = excluded.undeploying, "
                "fresh_above = excluded.fresh_above",
                _row(wish),
            )

    def forget(self, instance: InstanceId) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM deployments WHERE instance = ?", (instance,))

    def next_epoch(self, above: int = 0) -> int:
        """A number that was never given before, above that of any runner; it is spent even if nothing starts."""
        with self._transaction() as db:
            raised = "UPDATE meta SET value = MAX(CAST(value AS INTEGER), ?) + 1 WHERE key = 'last_epoch'"
            db.execute(raised, (above,))
            row = db.execute("SELECT value FROM meta WHERE key = 'last_epoch'").fetchone()
        return int(row[0])

    def raise_epochs_above(self, highest: int) -> None:
        """Runners know newer epochs than this store: it is an older copy."""
        with self._transaction() as db:
            db.execute("UPDATE meta SET value = MAX(CAST(value AS INTEGER), ?) WHERE key = 'last_epoch'", (highest,))

    def begin(self, instance: InstanceId, epoch: Epoch, placement: bytes) -> None:
        row = (
            epoch.number,
            instance,
            epoch.node,
            epoch.kv_budget_tokens,
            epoch.memory_bytes,
            placement,
            epoch.started_s,
            epoch.digest,
        )
        with self._transaction() as db:
            db.execute(
                "INSERT INTO epochs (number, instance, node, kv_budget_tokens, memory_bytes, placement, "
                "started_s, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            db.execute(
                "DELETE FROM epochs WHERE instance = ?1 AND number NOT IN "
                "(SELECT number FROM epochs WHERE instance = ?1 ORDER BY number DESC LIMIT ?2)",
                (instance, EPOCH_COUNT_MAX),
            )

    def update(self, epoch: Epoch) -> None:
        """Writes when it became READY, when and why it ended, and whether it answered."""
        with self._transaction() as db:
            db.execute(
                "UPDATE epochs SET ready_s = ?, ended_s = ?, cause = ?, answered = ? WHERE number = ?",
                (epoch.ready_s, epoch.ended_s, _cause_text(epoch.cause), epoch.answered, epoch.number),
            )

    def rebuild(self, plan: Plan) -> None:
        """All of it or nothing."""
        with self._transaction() as db:
            raised = "UPDATE meta SET value = MAX(CAST(value AS INTEGER), ?) WHERE key = 'last_epoch'"
            db.execute(raised, (plan.highest_epoch,))
            for wish in plan.replaced:
                db.execute("DELETE FROM deployments WHERE instance = ?", (wish.instance,))
            for wish, placement in plan.rebuilt:
                (epoch,) = wish.epochs
                db.execute("INSERT INTO deployments VALUES (?, ?, ?, ?, ?, ?, ?)", _row(wish))
                # Its number may be that of an epoch of ours that is over long since.
                db.execute("DELETE FROM epochs WHERE number = ?", (epoch.number,))
                values = (
                    *(epoch.number, wish.instance, epoch.node, epoch.kv_budget_tokens, epoch.memory_bytes, placement),
                    *(epoch.started_s, epoch.ready_s, epoch.ended_s, _cause_text(epoch.cause), epoch.answered),
                    epoch.digest,
                )
                db.execute("INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def take_over(self, now_s: float, event: Event) -> None:
        """Makes a copied store this node's: under a new id, with its deployments, less those being undeployed.

        Their epochs are over: what ran of them ran elsewhere.
        """
        fresh = StoreId(str(uuid.uuid4()))
        detail = f"it ran on node {self.owner}, whose store this was"
        cause = _cause_text(Cause("ADOPTED", detail, RankState.UNKNOWN))
        with self._transaction() as db:
            db.execute("UPDATE meta SET value = ? WHERE key = 'store_id'", (fresh,))
            db.execute("UPDATE meta SET value = ? WHERE key = 'node_id'", (self.node,))
            db.execute("DELETE FROM deployments WHERE undeploying")
            newest_epoch = "COALESCE((SELECT MAX(number) FROM epochs WHERE instance = deployments.instance), 0)"
            db.execute(f"UPDATE deployments SET fresh_since_s = ?, fresh_above = {newest_epoch}", (now_s,))
            db.execute("UPDATE epochs SET ended_s = ?, cause = ? WHERE ended_s IS NULL", (now_s, cause))
            # Nobody is waited for that will never be heard.
            db.execute("UPDATE epochs SET node = ?", (self.node,))
            newest = db.execute("SELECT COALESCE(MAX(number), 0) FROM events").fetchone()[0]
            told = (newest + 1, event.kind, event.subject, event.text, event.time_s, 0, event.done)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", told)
        self.store_id, self.owner = fresh, self.node

    def keep(self, events: Sequence[Event]) -> None:
        """Writes what happened; the newest are kept. Numbers grow, and the newest one is never forgotten."""
        rows = [
            (one.number, one.kind, one.subject, one.text, one.time_s, one.request_count, one.done) for one in events
        ]
        with self._transaction() as db:
            # OR REPLACE: a COMMIT that was said to have failed may have been done.
            db.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.execute("DELETE FROM events WHERE number <= (SELECT MAX(number) FROM events) - ?", (EVENT_COUNT_MAX,))

    def events(self) -> list[Event]:
        """What is kept, oldest first."""
        columns = "kind, subject, text, time_s, request_count, done, number"
        with self._reading() as db:
            return [Event(*row) for row in db.execute(f"SELECT {columns} FROM events ORDER BY number")]


def _row(wish: Wish) -> tuple[str, str, str, int, float, bool, int]:
    """In the order of the columns."""
    spec = wish.spec
    first = (str(wish.instance), spec.name, spec.model, spec.kv_budget_tokens)
    return (*first, wish.fresh_since_s, wish.undeploying, wish.fresh_above)


def _cause_text(cause: Cause | None) -> str | None:
    if cause is None:
        return None
    return json.dumps([cause.name, cause.detail, cause.state.value, cause.permanent, cause.signature, cause.remedy])


def _cause(text: Any) -> Cause | None:
    if text is None:
        return None
    # What is missing at the end was not known when it was written.
    name, detail, state, *more = json.loads(text)
    return Cause(name, detail, RankState(state), *more)
