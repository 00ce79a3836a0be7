"""Before an epoch, and on its way to READY: what is done, and what is said."""

from dataclasses import replace

from scheduler.scenes import (
    CRASHED,
    FETCHABLE,
    GIB,
    I1,
    LOST,
    MODEL,
    NEW,
    START,
    STARTED,
    STOPPED,
    UNUSABLE,
    USABLE,
    A,
    R,
    S,
    Situation,
    epoch,
    id_of,
    rank,
    runner,
    wish,
    world,
)
from thunderline.scheduler.actions import AuditModel, FetchModel, MakeAbsent, MakePrepared, MakeReady
from thunderline.scheduler.values import Fetch

STARTING: dict[str, Situation] = {
    # Before an epoch.
    "without any runner it waits for one": (world(NEW), S.WAITING, "no runner can be reached", []),
    "a runner that cannot be reached is no runner": (
        world(NEW, runner(reachable=False)),
        S.WAITING,
        "no runner can be reached",
        [],
    ),
    "a runner that still looks for its ranks is not asked yet": (
        world(NEW, runner(complete=False)),
        S.WAITING,
        "no runner can be reached",
        [],
    ),
    "first the files are checked": (
        world(NEW, runner(), audit=None),
        S.WAITING,
        "being checked",
        [AuditModel(A, MODEL)],
    ),
    "a check under way is not asked for twice": (
        world(NEW, runner(), audit=None, in_flight=frozenset({("audit", A, MODEL)})),
        S.WAITING,
        "being checked",
        [],
    ),
    "files that can be fetched are fetched": (
        world(NEW, runner(), audit=FETCHABLE),
        S.WAITING,
        "about to be fetched",
        [FetchModel(A, MODEL)],
    ),
    "a fetch says how far it is": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(43, 100)),
        S.WAITING,
        "is being fetched, 43%",
        [],
    ),
    "a fetch that does not know its size is at 0%": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch()),
        S.WAITING,
        "is being fetched, 0%",
        [],
    ),
    "a fetch that failed is tried again after a minute": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(error="no network", failure_count=1, at_s=940.0)),
        S.WAITING,
        "no network (tried 1 times",
        [FetchModel(A, MODEL)],
    ),
    "a fetch that failed is not tried again before": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(error="no network", failure_count=1, at_s=941.0)),
        S.WAITING,
        "no network",
        [],
    ),
    "a fetch that can never work is impossible": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(error="no such model", permanent=True, at_s=1.0)),
        S.IMPOSSIBLE,
        "no such model",
        [],
    ),
    "files that can never be used are impossible": (
        world(NEW, runner(), audit=UNUSABLE),
        S.IMPOSSIBLE,
        "no config.json in the folder",
        [],
    ),
    "what is impossible is checked again every 10 s": (
        world(NEW, runner(), audit=replace(UNUSABLE, at_s=990.0)),
        S.IMPOSSIBLE,
        "no config.json in the folder",
        [AuditModel(A, MODEL)],
    ),
    "a model larger than the machine is impossible, with the figures": (
        world(NEW, runner(), audit=replace(USABLE, usable_memory_bytes=2 * GIB, at_s=995.0)),
        S.IMPOSSIBLE,
        "needs 4.90 GiB, has 2.00 GiB free of 2.00 GiB",
        [],
    ),
    "usable files start an epoch": (
        world(NEW, runner()),
        S.STARTING,
        "is being started",
        [START],
    ),
    "an epoch that is being written down is not started twice": (
        world(NEW, runner(), in_flight=frozenset({("instance", I1)})),
        S.STARTING,
        "is being started",
        [],
    ),
    # An epoch on its way.
    "an epoch that its runner never heard of is told again": (
        world(STARTED, runner()),
        S.STARTING,
        "is being started",
        [MakePrepared(id_of(4), A)],
    ),
    "an incomplete view concludes nothing from an absence": (
        world(STARTED, runner(complete=False)),
        S.WAITING,
        "node a to say what it has",
        [],
    ),
    "a starting rank is waited for": (world(STARTED, runner(rank(4, R.STARTING))), S.STARTING, "is STARTING", []),
    "a PREPARED rank is told to become READY": (
        world(STARTED, runner(rank(4, R.PREPARED))),
        S.STARTING,
        "is PREPARED",
        [MakeReady(id_of(4), A)],
    ),
    "a PREPARED rank in an incomplete view is told to become READY": (
        world(STARTED, runner(rank(4, R.PREPARED), complete=False)),
        S.STARTING,
        "is PREPARED",
        [MakeReady(id_of(4), A)],
    ),
    "a rank that has been told is not told again before it answers": (
        world(STARTED, runner(rank(4, R.PREPARED)), in_flight=frozenset({("rank", id_of(4))})),
        S.STARTING,
        "is PREPARED",
        [],
    ),
    "a PREPARED rank waits while an older one is STOPPING": (
        world(wish(epoch(3, 995.0, CRASHED), epoch(4)), runner(rank(3, R.STOPPING), rank(4, R.PREPARED))),
        S.STARTING,
        "is PREPARED",
        [],
    ),
    "a PREPARED rank waits while an older one is FAILED, which is ended": (
        world(wish(epoch(3, 995.0, CRASHED), epoch(4)), runner(rank(3, R.FAILED, CRASHED), rank(4, R.PREPARED))),
        S.STARTING,
        "is PREPARED",
        [MakeAbsent(id_of(3), A)],
    ),
    "a PREPARED rank goes on when the older one is ABSENT": (
        world(wish(epoch(3, 995.0, CRASHED), epoch(4)), runner(rank(3, R.ABSENT, CRASHED), rank(4, R.PREPARED))),
        S.STARTING,
        "is PREPARED",
        [MakeReady(id_of(4), A)],
    ),
    "a loading rank says how far it is": (
        world(STARTED, runner(rank(4, R.LOADING, share=0.43))),
        S.STARTING,
        "epoch 4 on node a is LOADING, 43%",
        [],
    ),
    "a warming rank is waited for": (world(STARTED, runner(rank(4, R.WARMING))), S.STARTING, "is WARMING", []),
    "the next epoch of one that served is a repair": (
        world(wish(epoch(3, 995.0, CRASHED, 992.0), epoch(4)), runner(rank(4, R.LOADING)), served=True),
        S.REPAIRING,
        "is LOADING",
        [],
    ),
    "also when more than one epoch failed since it served": (
        world(wish(epoch(3, 995.0, CRASHED, 992.0), epoch(4, 996.0, CRASHED)), runner(), served=True),
        S.REPAIRING,
        "the next epoch is being started",
        [START],
    ),
    "the next epoch after a restart of everything is a start": (
        world(wish(epoch(3, 995.0, LOST, 992.0), epoch(4)), runner(rank(4, R.LOADING))),
        S.STARTING,
        "is LOADING",
        [],
    ),
    "the first epoch after a restart of everything is a start": (
        world(wish(epoch(3, 995.0, LOST, 992.0)), runner()),
        S.STARTING,
        "the next epoch is being started",
        [START],
    ),
    "the next epoch of one whose rank was told to end is a start": (
        world(wish(epoch(3, 995.0, STOPPED, 992.0), epoch(4)), runner(rank(4, R.LOADING)), served=True),
        S.STARTING,
        "is LOADING",
        [],
    ),
}
