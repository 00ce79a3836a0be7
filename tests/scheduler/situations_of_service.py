"""From READY to the end, and after it: what is done, and what is said."""

from dataclasses import replace

from scheduler.scenes import (
    CRASHED,
    EIGHT_ATTEMPTS,
    ENDED_A_WHILE_AGO,
    ENDED_JUST_NOW,
    FIVE_CRASHES,
    GIB,
    GONE,
    I1,
    LOST,
    MODEL,
    PERMANENT,
    SERVED,
    SERVED_AND_ENDED,
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
from thunderline.scheduler.actions import UNDEPLOYED, AuditModel, EndEpoch, Forget, MakeAbsent, MarkReady
from thunderline.scheduler.values import Cause

JUST_NOW = replace(USABLE, at_s=995.0)

SERVING: dict[str, Situation] = {
    # READY.
    "a READY rank is written down once": (
        world(STARTED, runner(rank(4, R.READY))),
        S.READY,
        "epoch 4 serves on node a",
        [MarkReady(I1, 4)],
    ),
    "a READY rank that is written down needs nothing": (
        world(SERVED, runner(rank(4, R.READY))),
        S.READY,
        "epoch 4 serves on node a",
        [],
    ),
    "a rank that is batched otherwise than plainly says how and why": (
        world(
            SERVED,
            runner(replace(rank(4, R.READY), batching="one_sequence_at_a_time", batching_reason="a copy differs")),
        ),
        S.READY,
        "epoch 4 serves on node a, one sequence at a time (a copy differs)",
        [],
    ),
    "a restarted scheduler routes to what is READY, even before the view is complete": (
        world(SERVED, runner(rank(4, R.READY), complete=False), audit=None),
        S.READY,
        "serves",
        [],
    ),
    "a READY rank behind an unreachable runner is not routed to, nor given up": (
        world(SERVED, runner(rank(4, R.READY), reachable=False)),
        S.WAITING,
        "the runner of node a cannot be reached",
        [],
    ),
    "a READY rank whose node is not known is not given up": (
        world(SERVED),
        S.WAITING,
        "the runner of node a cannot be reached",
        [],
    ),
    "a restarted runner that still looks concludes nothing about a READY rank": (
        world(SERVED, runner(complete=False)),
        S.WAITING,
        "node a to say what it has",
        [],
    ),
    "a READY rank that is not dialled in takes nothing, and is not given up": (
        world(SERVED, runner(rank(4, R.READY, attached=False)), served=True),
        S.WAITING,
        "epoch 4 waits for its rank to dial in to the runner",
        [],
    ),
    "also while its runner still looks for its ranks": (
        world(SERVED, runner(rank(4, R.READY, attached=False), complete=False)),
        S.WAITING,
        "its rank to dial in to the runner",
        [],
    ),
    "that it became READY is written down all the same": (
        world(STARTED, runner(rank(4, R.READY, attached=False))),
        S.WAITING,
        "its rank to dial in to the runner",
        [MarkReady(I1, 4)],
    ),
    # The end of an epoch.
    "a READY rank that a complete view lacks is lost": (
        world(SERVED, runner(), served=True),
        S.REPAIRING,
        "does not have it any more",
        [EndEpoch(I1, 4, LOST)],
    ),
    "a rank that went while the scheduler was away needs a start, no repair": (
        world(SERVED, runner()),
        S.WAITING,
        "does not have it any more",
        [EndEpoch(I1, 4, LOST)],
    ),
    "a rank that was told to end needs a start, no repair": (
        world(SERVED, runner(rank(4, R.ABSENT, STOPPED)), served=True),
        S.WAITING,
        "STOPPED while READY",
        [EndEpoch(I1, 4, STOPPED)],
    ),
    "a FAILED rank ends its epoch first": (
        world(SERVED, runner(rank(4, R.FAILED, CRASHED)), served=True),
        S.REPAIRING,
        "SIGNAL while LOADING: SIGSEGV",
        [EndEpoch(I1, 4, CRASHED)],
    ),
    "a rank that went before it was READY ends its epoch": (
        world(STARTED, runner(rank(4, R.ABSENT, CRASHED))),
        S.WAITING,
        "SIGNAL while LOADING: SIGSEGV",
        [EndEpoch(I1, 4, CRASHED)],
    ),
    "a rank that goes without a word has a cause all the same": (
        world(SERVED, runner(rank(4, R.STOPPING)), served=True),
        S.REPAIRING,
        "LOST: it is STOPPING and nobody told it to",
        [EndEpoch(I1, 4, Cause("LOST", "it is STOPPING and nobody told it to", R.UNKNOWN))],
    ),
    "just after a failure the next epoch waits": (
        world(ENDED_JUST_NOW, runner(rank(4, R.ABSENT, CRASHED))),
        S.WAITING,
        "the last epoch ended: SIGNAL while LOADING: SIGSEGV",
        [],
    ),
    "the wait after an epoch that served is a repair": (
        world(SERVED_AND_ENDED, runner(), served=True),
        S.REPAIRING,
        "the last epoch ended: SIGNAL while LOADING: SIGSEGV",
        [],
    ),
    "after the wait the next epoch starts": (
        world(ENDED_A_WHILE_AGO, runner(rank(4, R.ABSENT, CRASHED))),
        S.STARTING,
        "the next epoch is being started",
        [START],
    ),
    "five crashes open the circuit and nothing starts": (
        world(FIVE_CRASHES, runner(), audit=JUST_NOW),
        S.CRASH_LOOP,
        "crashed 5 times in a row: SIGNAL while LOADING: SIGSEGV; mend it and run `thunderline deploy org/m` again",
        [],
    ),
    "the files of one whose circuit is open are checked every 10 s": (
        world(FIVE_CRASHES, runner()),
        S.CRASH_LOOP,
        "crashed 5 times in a row",
        [AuditModel(A, MODEL)],
    ),
    "other files close the circuit": (
        world(FIVE_CRASHES, runner(), audit=replace(JUST_NOW, digest="another")),
        S.STARTING,
        "the next epoch is being started",
        [replace(START, digest="another")],
    ),
    "files that cannot be used do not": (
        world(FIVE_CRASHES, runner(), audit=replace(UNUSABLE, digest="another")),
        S.CRASH_LOOP,
        "crashed 5 times in a row",
        [],
    ),
    "an open circuit is said even when no runner can be reached": (
        world(FIVE_CRASHES),
        S.CRASH_LOOP,
        "crashed 5 times in a row",
        [],
    ),
    "attempts that are used up are all told": (
        world(EIGHT_ATTEMPTS, runner(), audit=JUST_NOW),
        S.WAITING,
        "attempts used up: epoch 1: SPAWN_FAILED while STARTING: try 1; epoch 2:",
        [],
    ),
    "the files of one whose attempts are used up are checked every 10 s": (
        world(EIGHT_ATTEMPTS, runner()),
        S.WAITING,
        "attempts used up",
        [AuditModel(A, MODEL)],
    ),
    "other files make the next attempt start at once": (
        world(EIGHT_ATTEMPTS, runner(), audit=replace(JUST_NOW, digest="another")),
        S.STARTING,
        "the next epoch is being started",
        [replace(START, digest="another")],
    ),
    "a permanent cause is impossible at once": (
        world(wish(epoch(4, 995.0, PERMANENT)), runner()),
        S.IMPOSSIBLE,
        "the architecture 'x' is not known",
        [],
    ),
    "a permanent cause is checked again after 10 s": (
        world(wish(epoch(4, 990.0, PERMANENT)), runner()),
        S.IMPOSSIBLE,
        "the architecture 'x' is not known",
        [AuditModel(A, MODEL)],
    ),
    # Memory.
    "memory that an old rank still holds is waited for": (
        world(
            ENDED_A_WHILE_AGO,
            runner(rank(4, R.STOPPING)),
            audit=replace(USABLE, usable_memory_bytes=8 * GIB),
        ),
        S.WAITING,
        "the last epoch ended",
        [],
    ),
    # Undeploy.
    "undeploying ends the rank": (
        world(GONE, runner(rank(4, R.READY))),
        S.UNDEPLOYING,
        "i1-4-0 to end",
        [MakeAbsent(id_of(4), A)],
    ),
    "undeploying waits for a rank that is STOPPING": (
        world(GONE, runner(rank(4, R.STOPPING))),
        S.UNDEPLOYING,
        "i1-4-0 to end",
        [],
    ),
    "undeploying waits for a runner that cannot be reached": (
        world(GONE, runner(rank(4, R.READY), reachable=False)),
        S.UNDEPLOYING,
        "the runner of node a",
        [],
    ),
    "undeploying concludes nothing from an incomplete view": (
        world(GONE, runner(complete=False)),
        S.UNDEPLOYING,
        "the runner of node a",
        [],
    ),
    "undeploying writes the end of an epoch down whose rank is ABSENT": (
        world(GONE, runner(rank(4, R.ABSENT))),
        S.UNDEPLOYING,
        "its rank to end",
        [EndEpoch(I1, 4, UNDEPLOYED)],
    ),
    "undeploying asks about an epoch that was started and is not seen yet": (
        world(GONE, runner()),
        S.UNDEPLOYING,
        "its rank to end",
        [MakeAbsent(id_of(4), A)],
    ),
    "undeploying is over when its epochs are": (
        world(replace(GONE, epochs=(epoch(4, 980.0, UNDEPLOYED),)), runner(rank(4, R.ABSENT))),
        S.UNDEPLOYING,
        "its ranks have ended",
        [Forget(I1)],
    ),
    "what never had an epoch is forgotten at once": (
        world(wish(undeploying=True)),
        S.UNDEPLOYING,
        "its ranks have ended",
        [Forget(I1)],
    ),
}
