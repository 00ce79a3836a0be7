"""Faults by a seeded schedule; of each is noted what was under way as it struck, and that it took effect."""

import asyncio
import contextlib
import errno
import math
import os
import random
import signal
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from faults.followers import COUNT, Follower
from faults.small_disk import SmallDisk
from faults.stopped import FOUND_WITHIN_S, Stopped, halt, stop
from installation import GRPC_ROLES, ROLES, Installation
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, StoreUnavailable
from thunderline.scheduler.events import Kind
from thunderline.v1 import cluster_pb2

FAULT_EVERY_S, RANK_FAULT_EVERY_S = 5.0, 30.0
STOPPED_MAX_S = 3.0
RANK, RUNNER, SCHEDULER, GATEWAY = "rank", "runner", "scheduler", "gateway"
# The scheduler's, which another process locks; and the disk that it and the logs are on.
STORE, DISK = "store", "disk"
FAULTS = ("SIGKILL", "SIGABRT", "SIGTERM", "SIGSTOP")
# A gateway that is told to end lets its streams end: limits.drain_s, and something for its own end.
GONE_WITHIN_S = {"SIGKILL": 2.0, "SIGABRT": 5.0, "SIGTERM": 40.0}
# A rank that stands is found, killed and reaped.
KILLED_WITHIN_S = 40.0
# A role that dies again and again waits up to ten seconds.
BACK_WITHIN_S = 20.0
# A fault waits so long for its target, and for streams that all have a token and are unfinished: 5 s are plenty, unless
# a gateway has left its clients to a rank that stands or loads.
FIND_S, UNDER_WAY_WAIT_S = 2.0, 30.0
LOCK_S = 1.0
# Kept events are told at once.
EVENTS_S = 30.0
# A Deploy that meets a full disk is refused at once; the disk is not full for much longer.
DEPLOY_S = 0.4
# Until a client has seen that its connection is closed.
SEEN_S = 1.0


@dataclass(frozen=True)
class Fault:
    at_s: float
    target: str
    kind: str
    for_s: float = 0.0


def schedule(seed: int, seconds: float) -> list[Fault]:
    """A role each time, the rank when it is its turn again."""
    draw, found, rank_at_s = random.Random(seed), list[Fault](), FAULT_EVERY_S
    for number in range(1, int((seconds - FAULT_EVERY_S) / FAULT_EVERY_S) + 1):
        at_s = number * FAULT_EVERY_S
        if at_s >= rank_at_s:
            # One that hangs is found after a while, and must have time to load.
            rank_at_s = at_s + RANK_FAULT_EVERY_S
            found.append(Fault(at_s, RANK, draw.choice(FAULTS)))
        else:
            target = draw.choice((*ROLES, STORE, DISK))
            kind = {STORE: "LOCKED", DISK: "FULL"}.get(target) or draw.choice(FAULTS)
            found.append(Fault(at_s, target, kind, draw.uniform(0.5, STOPPED_MAX_S)))
    return found


@dataclass
class Strike:
    """One fault as it came. `under_way`: streams that had a token and were unfinished at that moment.

    `effect` is empty until it is seen. `over_s`: when its target worked again. Times of the monotonic clock.
    `tokens`: how many pieces the streams that were under way got while the disk was full.
    """

    fault: Fault
    at_s: float
    under_way: int
    pid: int = 0
    stopped: Stopped | None = None
    effect: str = ""
    over_s: float = math.inf
    tokens: int = 0


class Striker:
    """`streams` are the clients' newest ones; those of `by_http` are the gateway's. `disk` is what the home is on."""

    def __init__(self, up: Installation, streams: Mapping[int, Follower], by_http: set[int], disk: SmallDisk) -> None:
        self._up = up
        self._streams = streams
        self._by_http = by_http
        self._disk = disk
        self._spec = cluster_pb2.DeploymentSpec()
        self.strikes: list[Strike] = []
        # Whose target was not there, and those for which there are no rights.
        self.missed: list[Fault] = []
        self.left_out: list[Fault] = []
        self.longest_wait_s = 0.0

    def under_way(self, target: str) -> int:
        """Of the streams that a fault of this target can meet."""
        met = self._by_http if target == GATEWAY else self._streams.keys()
        return sum(self._streams[number].is_under_way for number in met if number in self._streams)

    def all_of(self, target: str) -> int:
        return len(self._by_http) if target == GATEWAY else COUNT

    async def run(self, planned: Sequence[Fault]) -> None:
        """Until the last one is over."""
        async with SchedulerClient(self._up.target("scheduler")) as client:
            (deployment,) = await client.deployments()
        self._spec = deployment.spec
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as watching:
            for fault in planned:
                await asyncio.sleep(max(0.0, begun_s + fault.at_s - time.monotonic()))
                if fault.target == STORE:
                    await self._lock(fault)
                elif fault.target == DISK and not self._disk.is_real:
                    self.left_out.append(fault)
                elif fault.target == DISK:
                    await self._fill(fault)
                elif (process := await asyncio.to_thread(self._find, fault.target)) is None:
                    self.missed.append(fault)
                else:
                    await self._strike(fault, process, watching)

    def _find(self, target: str) -> psutil.Process | None:
        try:
            return psutil.Process(self._up.pid(target, timeout_s=FIND_S))
        except (AssertionError, psutil.NoSuchProcess):
            return None

    async def _until_under_way(self, target: str) -> None:
        begun_s = time.monotonic()
        while self.under_way(target) < self.all_of(target) and time.monotonic() < begun_s + UNDER_WAY_WAIT_S:
            await asyncio.sleep(0.01)
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - begun_s)

    async def _strike(self, fault: Fault, process: psutil.Process, watching: asyncio.TaskGroup) -> None:
        await self._until_under_way(fault.target)
        strike = Strike(fault, time.monotonic(), self.under_way(fault.target), process.pid)
        try:
            if fault.kind != "SIGSTOP":
                os.kill(process.pid, signal.Signals[fault.kind])
            elif fault.target == RANK:
                strike.stopped = stop(self._up, process.pid)
            else:
                halt(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            self.missed.append(fault)
            return
        self.strikes.append(strike)
        if fault.kind == "SIGSTOP" and fault.target != RANK:
            await self._stand(strike, process)
        else:
            watching.create_task(self._see_end(strike, process))

    async def _stand(self, strike: Strike, process: psutil.Process) -> None:
        """Another process that continues it would leave no state T at the end."""
        await asyncio.sleep(strike.fault.for_s)
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                strike.effect = f"state T, for {time.monotonic() - strike.at_s:.2f} s"
            os.kill(process.pid, signal.SIGCONT)
        strike.over_s = time.monotonic()

    async def _see_end(self, strike: Strike, process: psutil.Process) -> None:
        within_s = GONE_WITHIN_S.get(strike.fault.kind, 0.0)
        if strike.stopped is not None:
            within_s = strike.stopped.allowed_s + KILLED_WITHIN_S
        while not _is_gone(process):
            if time.monotonic() > strike.at_s + within_s:
                return
            await asyncio.sleep(0.02)
        strike.effect = f"it was gone after {time.monotonic() - strike.at_s:.2f} s"
        target, end_s = strike.fault.target, time.monotonic() + BACK_WITHIN_S
        while target != RANK and not await self._is_back(target, process.pid):
            if time.monotonic() > end_s:
                return
            await asyncio.sleep(0.05)
        strike.over_s = time.monotonic()

    async def _is_back(self, role: str, struck_pid: int) -> bool:
        """Whether somebody else listens in its place: its own socket may outlive its first thread for a moment."""
        found = await asyncio.to_thread(self._up.processes)
        if role not in {name for pid, name in found.items() if pid != struck_pid}:
            return False
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._up.base_port + GRPC_ROLES.get(role, 0))
        except OSError:
            return False
        writer.close()
        return True

    async def _lock(self, fault: Fault) -> None:
        """Until a Deploy has met it, which says what is deployed already once more."""
        await self._until_under_way(fault.target)
        strike = Strike(fault, time.monotonic(), self.under_way(fault.target))
        self.strikes.append(strike)
        path = self._up.home / "scheduler.db"
        async with SchedulerClient(self._up.target("scheduler")) as client:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=LOCK_S)) as store:
                store.execute("BEGIN IMMEDIATE")
                locked_s = time.time()
                try:
                    await client.deploy(self._spec)
                except StoreUnavailable as error:
                    strike.effect = f"a Deploy was refused: {error.message}"
                except ClusterError:
                    # The scheduler may have been struck before.
                    pass
                finally:
                    store.execute("ROLLBACK")
            strike.over_s = time.monotonic()
            with contextlib.suppress(ClusterError):
                async with asyncio.timeout(EVENTS_S):
                    async for event in client.watch_events(kept_only=True):
                        if event.kind == Kind.STORE_UNAVAILABLE and event.time.ToNanoseconds() / 1e9 >= locked_s - 0.1:
                            strike.effect = strike.effect or event.text

    async def _fill(self, fault: Fault) -> None:
        """It was full if a byte of ours found no room, before and after; a Deploy may have met it too."""
        await self._until_under_way(fault.target)
        begun, pids = time.monotonic(), list[int]()
        strike = Strike(fault, begun, self.under_way(fault.target))
        self.strikes.append(strike)
        had = [(one, len(one.times_s)) for one in self._streams.values()]
        try:
            await asyncio.to_thread(self._disk.fill, pids)
            effects = [_refusal(self._disk), await self._deploy_refused()]
            await asyncio.sleep(max(0.0, begun + fault.for_s - time.monotonic()))
            effects.append(_refusal(self._disk))
        finally:
            self._disk.make_room(pids)
        strike.over_s = time.monotonic()
        strike.tokens = sum(len(one.times_s) - before for one, before in had)
        if effects[0] and effects[2]:
            met = effects[1] or "a Deploy was not refused"
            strike.effect = f"{effects[0]}, for {strike.over_s - begun:.2f} s; {met}; {strike.tokens} pieces came"

    async def _deploy_refused(self) -> str:
        with contextlib.suppress(TimeoutError, ClusterError):
            async with asyncio.timeout(DEPLOY_S), SchedulerClient(self._up.target(SCHEDULER)) as client:
                try:
                    await client.deploy(self._spec)
                except StoreUnavailable as error:
                    return f"a Deploy was refused: {error.message}"
        return ""

    # What it means for the streams.

    @property
    def gateway_outages(self) -> list[Strike]:
        return [one for one in self.strikes if one.fault.target == GATEWAY and one.fault.kind != "SIGSTOP"]

    def gateway_was_out(self, begun_s: float, ended_s: float) -> bool:
        """Whether a request of this time met a gateway that was killed, aborted or told to end; not one that stood."""
        return any(one.at_s <= ended_s and max(begun_s, ended_s - SEEN_S) <= one.over_s for one in self.gateway_outages)

    def is_struck_otherwise(self, strike: Strike, begun_s: float, ended_s: float, reload_s: float) -> bool:
        """Whether another fault, or the reload after it, may be why a stream was silent then."""
        others = [(one, reload_s if one.fault.target == RANK else SEEN_S) for one in self.strikes if one is not strike]
        return any(one.at_s <= ended_s and begun_s <= one.over_s + felt_s for one, felt_s in others)

    def stall_s(self, begun_s: float, ended_s: float) -> float:
        """How much of a silence a rank that stood may have taken, until it had to be found."""
        stalls = [(one.at_s, self.found_by_s(one.stopped)) for one in self.strikes if one.stopped is not None]
        met = [found_s - max(begun_s, at_s) for at_s, found_s in stalls if at_s < ended_s and begun_s < found_s]
        return max(met, default=0.0)

    def found_by_s(self, stopped: Stopped) -> float:
        """By the deadline that its map had; a runner that was struck meanwhile begins to count anew."""
        by_s = stopped.at_s + stopped.allowed_s + FOUND_WITHIN_S
        for one in self.strikes:
            if one.fault.target == RUNNER and stopped.at_s <= one.at_s <= by_s:
                by_s = max(by_s, one.over_s + stopped.step_s + FOUND_WITHIN_S)
        return by_s


def _refusal(disk: SmallDisk) -> str:
    """What the disk says to a byte of ours."""
    probe = disk.folder / "probe"
    try:
        probe.write_bytes(b"1")
    except OSError as error:
        return "ENOSPC" if error.errno == errno.ENOSPC else ""
    finally:
        probe.unlink(missing_ok=True)
    return ""


def _is_gone(process: psutil.Process) -> bool:
    """One that nobody has waited for yet is gone too."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
