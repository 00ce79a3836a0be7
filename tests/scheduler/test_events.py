"""What a pass tells, case by case: one event for a change, its cause, and what was done."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler.scenes import (
    CRASHED,
    GONE,
    I1,
    NEW,
    NOW_S,
    PERMANENT,
    RECOGNISED,
    SERVED,
    STARTED,
    STOPPED,
    WAITS,
    A,
    R,
    S,
    epoch,
    id_of,
    rank,
    runner,
    wish,
    world,
)
from thunderline.scheduler.events import (
    DONE_LENGTH_MAX,
    Event,
    Kind,
    RankFacts,
    Seen,
    at_start,
    happened,
    numbered,
    poisoned,
    store_back,
    store_unavailable,
)
from thunderline.scheduler.values import Cause, DeploymentState, Epoch, Standing, Wish, World
from thunderline.scheduler.wording import TEXT_LENGTH_MAX

READY, WAITING, CRASH_LOOP, IMPOSSIBLE = S.READY, S.WAITING, S.CRASH_LOOP, S.IMPOSSIBLE
KILLED = Cause("SIGNAL", "SIGKILL", R.READY)
FACTS = {id_of(4): RankFacts(pid=1234, uptime_s=41.3, request_count=8)}
# Five that crashed while LOADING, and no wait between them: the last opens the circuit.
CRASHES = tuple(epoch(number, 994.0 + number / 10, CRASHED) for number in range(1, 5))

TOLD = Event(Kind.EPOCH_ENDED, "m", "epoch 4 ended", 995.0, number=8)


def ended(cause: Cause, *before: Epoch, undeploying: bool = False) -> Wish:
    return wish(*before, replace(epoch(4 if not before else 5), ended_s=995.0, cause=cause), undeploying=undeploying)


def seen(*wishes: Wish, **more: object) -> Seen:
    """A pass in which all of them were seen; nobody's runner, unless it is said."""
    before = replace(at_start(wishes, []), unadopted=frozenset())
    return replace(before, **more)  # type: ignore[arg-type]


def told(before: Seen, now: World, state: DeploymentState = WAITING, reason: str = "why") -> list[Event]:
    standings = {one.instance: Standing(state, reason) for one in now.wishes}
    return happened(before, now, standings, FACTS, NOW_S, WAITS)[0]


def said(events: list[Event]) -> list[str]:
    """As `thunderline events` shows them."""
    return [f"{one.kind} {one.subject}: {one.text} [{one.request_count}] {one.done}".rstrip() for one in events]


UP, DOWN = runner(rank(4, R.READY)), runner(rank(4, R.READY), reachable=False, complete=False)
HERE = frozenset({A})
CURRENT = frozenset({(I1, 4)})
Case = tuple[Seen, World, DeploymentState, list[str]]
CASES: dict[str, Case] = {
    "nothing": (seen(SERVED), world(SERVED, UP), READY, []),
    "a deployment": (seen(), world(NEW), WAITING, ["DEPLOYED m: deployed, from org/m [0]"]),
    "a deployment again": (
        seen(ended(CRASHED)),
        world(replace(ended(CRASHED), fresh_since_s=999.0)),
        WAITING,
        ["DEPLOYED m: deployed again, from org/m: what failed before does not count [0]"],
    ),
    "an epoch": (
        seen(NEW),
        world(STARTED),
        S.STARTING,
        ["EPOCH_STARTED m: epoch 4 is being started on node a [0]"],
    ),
    "READY": (
        seen(STARTED),
        world(STARTED, UP),
        READY,
        ["DEPLOYMENT_READY m: epoch 4 is READY on node a after 10 s [0] requests are let in"],
    ),
    "READY, and still not written down": (
        seen(STARTED, ready=CURRENT),
        world(STARTED, UP),
        READY,
        [],
    ),
    "READY again, since its runner is back": (
        seen(SERVED, lost=HERE),
        world(SERVED, UP),
        READY,
        [
            "RUNNER_BACK node a: its runner answers again [0] 1 rank of it found READY: nothing was loaded again",
        ],
    ),
    "a kill from outside": (
        seen(SERVED),
        world(ended(KILLED)),
        S.REPAIRING,
        [
            "EPOCH_ENDED m: epoch 4 ended: SIGNAL SIGKILL while READY (pid 1234, 41 s up): killed from outside [8] "
            "the next epoch starts in 0.5 s"
        ],
    ),
    "a signal with last words": (
        seen(SERVED),
        world(ended(Cause("SIGNAL", "SIGABRT: Fatal Python error: Aborted", R.READY))),
        S.REPAIRING,
        [
            "EPOCH_ENDED m: epoch 4 ended: SIGNAL SIGABRT while READY (pid 1234, 41 s up): Fatal Python error: Aborted "
            "[8] the next epoch starts in 0.5 s"
        ],
    ),
    "an end that others have met": (
        seen(SERVED),
        world(ended(RECOGNISED)),
        S.REPAIRING,
        [
            "EPOCH_ENDED m: epoch 4 ended: SIGNAL SIGABRT while READY (pid 1234, 41 s up): Caused GPU Timeout Error: "
            "likely the GPU waited (mlx#3830); send fewer [8] the next epoch starts in 0.5 s"
        ],
    ),
    "an end with its runner, by Ctrl-C": (
        seen(wish(epoch(9))),
        world(wish(epoch(9, 995.0, Cause("STOPPED", "told to end with its runner", R.UNKNOWN)))),
        WAITING,
        ["EPOCH_ENDED m: epoch 9 ended: STOPPED: told to end with its runner [0] the next epoch starts at once"],
    ),
    "an end that nobody has seen": (
        seen(wish(epoch(9))),
        world(wish(epoch(9, 995.0, Cause("LOST", "its runner does not have it", R.UNKNOWN)))),
        WAITING,
        [
            "EPOCH_ENDED m: epoch 9 ended: LOST (5.0 s up): its runner does not have it [0] "
            "the next epoch starts in 0.5 s"
        ],
    ),
    "a permanent cause": (
        seen(STARTED),
        world(ended(PERMANENT)),
        IMPOSSIBLE,
        [
            "EPOCH_ENDED m: epoch 4 ended: LOAD_FAILED while LOADING (pid 1234, 41 s up): the architecture 'x' is not "
            "known [8] no next epoch starts until its cause has changed",
            "DEPLOYMENT_IMPOSSIBLE m: why [0] no next epoch starts; requests are refused at once",
        ],
    ),
    "the circuit opens": (
        seen(wish(*CRASHES, epoch(5))),
        world(ended(CRASHED, *CRASHES)),
        CRASH_LOOP,
        [
            "EPOCH_ENDED m: epoch 5 ended: SIGNAL SIGSEGV while LOADING (5.0 s up) [0] the circuit is open",
            "DEPLOYMENT_CRASH_LOOP m: why [0] no next epoch starts; requests are refused at once",
        ],
    ),
    "given up, and told": (
        seen(ended(PERMANENT), given_up={I1: "DEPLOYMENT_IMPOSSIBLE"}),
        world(ended(PERMANENT)),
        IMPOSSIBLE,
        [],
    ),
    "told to end, and wanted": (
        seen(SERVED),
        world(ended(STOPPED)),
        S.REPAIRING,
        [
            "EPOCH_ENDED m: epoch 4 ended: STOPPED while READY (pid 1234, 41 s up): told to end [8] "
            "the next epoch starts at once"
        ],
    ),
    "undeployed": (
        seen(GONE),
        world(ended(STOPPED, undeploying=True)),
        S.UNDEPLOYING,
        ["EPOCH_ENDED m: epoch 4 ended: STOPPED while READY (pid 1234, 41 s up): told to end [8] undeployed"],
    ),
    "nothing is left": (seen(GONE), world(None), WAITING, ["UNDEPLOYED m: undeployed: nothing of it is left [0]"]),
    "an epoch that began and ended between two passes": (
        seen(NEW),
        world(ended(Cause("EPOCH_CONFLICT", "it was refused", R.STARTING))),
        WAITING,
        [
            "EPOCH_STARTED m: epoch 4 is being started on node a [0]",
            "EPOCH_ENDED m: epoch 4 ended: EPOCH_CONFLICT while STARTING (pid 1234, 41 s up): it was refused [8] "
            "the next epoch starts in 0.5 s",
        ],
    ),
    "epochs that are forgotten": (seen(wish(epoch(3, 995.0, CRASHED), epoch(4))), world(STARTED), S.STARTING, []),
    "a start of the scheduler": (
        at_start([ended(KILLED)], []),
        world(ended(KILLED)),
        CRASH_LOOP,
        [
            "DEPLOYMENT_CRASH_LOOP m: why [0] no next epoch starts; requests are refused at once",
        ],
    ),
    "a start of the scheduler after it was told": (
        at_start([ended(KILLED)], [TOLD, Event(Kind.DEPLOYMENT_CRASH_LOOP, "m", "", 995.0)]),
        world(ended(KILLED)),
        CRASH_LOOP,
        [],
    ),
    "a rank that serves on": (
        at_start([SERVED], []),
        world(SERVED, UP),
        READY,
        [
            "RANK_ADOPTED m: epoch 4 was found READY on node a (pid 1234) after a start of the scheduler [0] "
            "it serves on: nothing was loaded again"
        ],
    ),
    "a rank that loads on": (
        at_start([STARTED], []),
        world(STARTED, runner(rank(4, R.LOADING))),
        S.STARTING,
        [
            "RANK_ADOPTED m: epoch 4 was found LOADING on node a (pid 1234) after a start of the scheduler [0] "
            "it goes on"
        ],
    ),
    "READY was not written before the start": (
        at_start([STARTED], []),
        world(STARTED, UP),
        READY,
        [
            "RANK_ADOPTED m: epoch 4 was found READY on node a (pid 1234) after a start of the scheduler [0] "
            "it serves on: nothing was loaded again"
        ],
    ),
    "a runner that is not there yet": (at_start([SERVED], []), world(SERVED, DOWN), WAITING, []),
    "a runner that comes for the first time": (seen(SERVED), world(SERVED, UP), READY, []),
    "a runner that is lost": (
        seen(SERVED, reachable=HERE),
        world(SERVED, DOWN),
        WAITING,
        ["RUNNER_LOST node a: its runner cannot be reached [8] until it is back nothing new goes to m"],
    ),
    "a runner that is still lost": (seen(SERVED, lost=HERE), world(SERVED, DOWN), WAITING, []),
    "a runner that is back and does not know yet": (
        seen(SERVED, lost=HERE),
        world(SERVED, runner(complete=False)),
        WAITING,
        [],
    ),
    "a runner that is back with nothing": (
        seen(SERVED, lost=HERE),
        world(SERVED, runner()),
        WAITING,
        ["RUNNER_BACK node a: its runner answers again [0]"],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_pass_tells(case: Case) -> None:
    before, now, state, expected = case
    assert said(told(before, now, state)) == expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_nothing_is_told_twice(case: Case) -> None:
    before, now, state, _ = case
    standings = {one.instance: Standing(state, "why") for one in now.wishes}
    _, after = happened(before, now, standings, FACTS, NOW_S, WAITS)
    assert told(after, now, state) == []


def test_a_rank_is_adopted_once_its_runner_shows_it() -> None:
    standings = {I1: Standing(WAITING, "its runner cannot be reached")}
    events, after = happened(at_start([SERVED], []), world(SERVED, DOWN), standings, FACTS, NOW_S, WAITS)
    assert (events, after.unadopted) == ([], CURRENT)
    assert [one.kind for one in told(after, world(SERVED, UP), READY)] == [Kind.RANK_ADOPTED]


def test_what_was_given_up_is_told_again_after_something_new() -> None:
    standings = {I1: Standing(IMPOSSIBLE, "why")}
    _, after = happened(seen(NEW), world(ended(PERMANENT)), standings, FACTS, NOW_S, WAITS)
    away = {I1: Standing(WAITING, "no runner can be reached")}
    _, after = happened(after, world(ended(PERMANENT)), away, FACTS, NOW_S, WAITS)
    assert told(after, world(ended(PERMANENT)), IMPOSSIBLE) == []
    again = replace(ended(PERMANENT), fresh_since_s=999.0)
    assert [one.kind for one in told(after, world(again), IMPOSSIBLE)] == [Kind.DEPLOYED, Kind.DEPLOYMENT_IMPOSSIBLE]


def test_an_event_has_the_time_of_what_it_tells() -> None:
    (event,) = told(seen(SERVED), world(ended(KILLED)), S.REPAIRING)
    assert event.time_s == 995.0


BEGUN = Event(Kind.EPOCH_STARTED, "m", "", 990.0, number=7)
KEPT: dict[str, tuple[list[Event], Cause, bool]] = {
    "an end that was written down, and we were killed": (
        [BEGUN],
        KILLED,
        True,
    ),
    "one that was told": ([BEGUN, TOLD], KILLED, False),
    "one that another deployment told": ([replace(TOLD, subject="n", time_s=994.0)], KILLED, True),
    "one of before all that is kept": ([Event(Kind.DEPLOYED, "n", "", 996.0, number=7)], KILLED, False),
    "an adoption has an event of its own": ([replace(TOLD, time_s=1.0)], Cause("ADOPTED", "", R.UNKNOWN), False),
    "a store of before there were events": ([], KILLED, False),
}


@pytest.mark.parametrize(("kept", "cause", "is_told"), KEPT.values(), ids=KEPT.keys())
def test_after_a_start_an_end_is_told_once(kept: list[Event], cause: Cause, is_told: bool) -> None:
    over = ended(cause)
    events, after = happened(at_start([over], kept), world(over, UP), {I1: Standing(WAITING, "")}, FACTS, NOW_S, WAITS)
    assert [(one.kind, one.time_s) for one in events if one.subject == "m"] == [(Kind.EPOCH_ENDED, 995.0)] * is_told
    assert happened(after, world(over, UP), {I1: Standing(WAITING, "")}, FACTS, NOW_S, WAITS)[0] == []


OTHERS: dict[str, tuple[Callable[[], Event], str]] = {
    "a request that kills": (
        lambda: poisoned("m", "1-2", "three ranks died under it", NOW_S),
        "REQUEST_POISONED m: request 1-2: three ranks died under it [1] it was refused; the others go on",
    ),
    "a store": (
        lambda: store_unavailable(A, "the disk is full", NOW_S),
        "STORE_UNAVAILABLE node a: the disk is full [0] nothing new starts; what serves goes on",
    ),
    "a store again": (
        lambda: store_back(A, 3.2, 0, NOW_S),
        "STORE_BACK node a: the scheduler's store can be written again, after 3.2 s [0] what waited is written",
    ),
    "a store after long": (
        lambda: store_back(A, 4000, 7, NOW_S),
        "STORE_BACK node a: the scheduler's store can be written again, after 67 min; 7 events could not be kept [0] "
        "what waited is written",
    ),
}


@pytest.mark.parametrize(("make", "text"), OTHERS.values(), ids=OTHERS.keys())
def test_what_no_pass_sees(make: Callable[[], Event], text: str) -> None:
    assert said([make()]) == [text]


def test_the_remedy_is_kept_also_of_an_end_with_many_words() -> None:
    wordy = replace(RECOGNISED, detail="SIGABRT: " + "x" * 5000)
    (event,) = told(seen(SERVED), world(ended(wordy)), S.REPAIRING)
    kept = numbered(event, 7).text
    assert len(kept) == TEXT_LENGTH_MAX
    assert kept.endswith("xxx: likely the GPU waited (mlx#3830); send fewer")


def test_what_is_kept_is_bounded() -> None:
    event = numbered(Event(Kind.EPOCH_ENDED, "m", "x" * 5000, 1.0, done="y" * 5000), 7)
    assert (len(event.text), len(event.done), event.number) == (TEXT_LENGTH_MAX, DONE_LENGTH_MAX, 7)
