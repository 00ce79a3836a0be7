"""Which deployments a word means, and what a request gets in each of their states."""

from dataclasses import replace

import pytest

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import (
    ClusterError,
    CrashLoop,
    NoReadyInstance,
    NotFound,
    PlacementImpossible,
    RequestPoisoned,
)
from thunderline.scheduler.routing import (
    ALONE_AGAIN_S,
    ALONE_HOLD_S,
    ALONE_WAIT_S,
    ANSWER_TOKENS,
    UNKNOWN,
    Candidate,
    Door,
    Kind,
    Request,
    Way,
    choose,
    default_name,
    gives_up_s,
    is_kept_free,
    kind,
    may_go_alone,
    may_pass_a_silent_one,
    meant,
    request,
    turn_begun_s,
    waited_in_vain,
)
from thunderline.scheduler.values import DeploymentState, Spec, Standing, Wish

S = DeploymentState
ANSWERS: dict[DeploymentState | None, Way | type[ClusterError]] = {
    None: NotFound,
    S.WAITING: Way.WAIT_FOR_READY,
    S.STARTING: Way.WAIT_FOR_READY,
    S.READY: Way.GO,
    S.REPAIRING: Way.WAIT_FOR_READY,
    S.CRASH_LOOP: CrashLoop,
    S.IMPOSSIBLE: PlacementImpossible,
    S.UNDEPLOYING: NotFound,
}


def door(state: DeploymentState, name: str = "m", kv_budget_tokens: int = 0) -> Door:
    return Door(name, InstanceId(f"i-{name}"), Standing(state, "epoch 4 is LOADING, 43%"), kv_budget_tokens)


def candidates(state: DeploymentState | None, is_open: bool) -> list[Candidate]:
    return [] if state is None else [Candidate(door(state), is_open=is_open)]


def test_every_state_has_an_answer() -> None:
    assert set(ANSWERS) == {None, *DeploymentState}


@pytest.mark.parametrize(("state", "answer"), ANSWERS.items(), ids=lambda value: getattr(value, "name", str(value)))
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "full"])
def test_a_request_gets(state: DeploymentState | None, answer: Way | type[ClusterError], is_open: bool) -> None:
    given = candidates(state, is_open)
    if isinstance(answer, Way):
        expected = Way.WAIT_FOR_ROOM if answer is Way.GO and not is_open else answer
        assert choose("m", given, UNKNOWN) == (expected, given[0].door)
        return
    with pytest.raises(answer) as refused:
        choose("m", given, UNKNOWN)
    assert "m" in refused.value.message
    assert not refused.value.resumable


@pytest.mark.parametrize("state", [S.CRASH_LOOP, S.IMPOSSIBLE], ids=lambda state: state.name)
def test_a_refusal_carries_the_deployments_sentence(state: DeploymentState) -> None:
    with pytest.raises(ClusterError, match=f"m is {state.name}: epoch 4 is LOADING, 43%"):
        choose("m", candidates(state, True), UNKNOWN)


def test_an_unknown_model_is_blamed_on_its_parameter() -> None:
    with pytest.raises(NotFound) as refused:
        choose("m", [], UNKNOWN)
    assert refused.value.param == "model"


# States, or refusals, of "a", "b", ...; what a request gets, and of whom.
SEVERAL: dict[tuple[DeploymentState, ...], tuple[Way | type[ClusterError], str]] = {
    (S.REPAIRING, S.READY): (Way.GO, "b"),
    (S.CRASH_LOOP, S.READY): (Way.GO, "b"),
    (S.UNDEPLOYING, S.READY): (Way.GO, "b"),
    (S.WAITING, S.STARTING, S.REPAIRING): (Way.WAIT_FOR_READY, "c"),
    (S.WAITING, S.STARTING): (Way.WAIT_FOR_READY, "b"),
    (S.CRASH_LOOP, S.WAITING): (Way.WAIT_FOR_READY, "b"),
    (S.IMPOSSIBLE, S.STARTING): (Way.WAIT_FOR_READY, "b"),
    (S.STARTING, S.STARTING): (Way.WAIT_FOR_READY, "a"),
    (S.IMPOSSIBLE, S.CRASH_LOOP): (CrashLoop, "b"),
    (S.UNDEPLOYING, S.IMPOSSIBLE): (PlacementImpossible, "b"),
    (S.UNDEPLOYING, S.UNDEPLOYING): (NotFound, "m"),
}


@pytest.mark.parametrize(("states", "expected"), SEVERAL.items(), ids=lambda value: str(value))
def test_of_several_the_most_hopeful_one_speaks(
    states: tuple[DeploymentState, ...], expected: tuple[Way | type[ClusterError], str]
) -> None:
    given = [Candidate(door(state, name)) for name, state in zip("abc", states, strict=False)]
    answer, name = expected
    if isinstance(answer, Way):
        found, chosen = choose("m", given, UNKNOWN)
        assert (found, chosen.name) == expected
        return
    with pytest.raises(answer, match=name):
        choose("m", given, UNKNOWN)


A, B = Candidate(door(S.READY, "a")), Candidate(door(S.READY, "b"))
AT_A = Request(parked_at=A.door.instance)
SMALL_A = replace(A, door=door(S.READY, "a", kv_budget_tokens=100))
STARTING_B = replace(B, door=door(S.STARTING, "b"))


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        pytest.param([A, B], UNKNOWN, (Way.GO, "a"), id="both empty: the first"),
        pytest.param([replace(A, tokens=9), replace(B, tokens=8)], UNKNOWN, (Way.GO, "b"), id="the fewest tokens"),
        pytest.param(
            [replace(A, tokens=9, request_count=1), replace(B, tokens=8, request_count=5)],
            UNKNOWN,
            (Way.GO, "b"),
            id="tokens before requests",
        ),
        pytest.param([replace(A, request_count=1), B], UNKNOWN, (Way.GO, "b"), id="then the fewest requests"),
        pytest.param([replace(A, is_open=False), replace(B, tokens=9)], UNKNOWN, (Way.GO, "b"), id="a full one not"),
        pytest.param([replace(A, is_open=False), STARTING_B], UNKNOWN, (Way.WAIT_FOR_ROOM, "a"), id="all full"),
        pytest.param([A, replace(STARTING_B)], UNKNOWN, (Way.GO, "a"), id="never one that is not READY"),
        pytest.param([replace(A, tokens=900), B], AT_A, (Way.GO, "a"), id="a resume to what is parked"),
        pytest.param([replace(A, is_open=False), B], AT_A, (Way.GO, "b"), id="unless there is no room"),
        pytest.param([replace(A, door=door(S.REPAIRING, "a")), B], AT_A, (Way.GO, "b"), id="or it is not READY"),
        pytest.param([SMALL_A, replace(B, tokens=9)], Request(1, 101), (Way.GO, "b"), id="where its KV fits"),
        pytest.param([SMALL_A, STARTING_B], Request(1, 101), (Way.WAIT_FOR_READY, "b"), id="also if it has to wait"),
        pytest.param([SMALL_A, STARTING_B], Request(1, 100), (Way.GO, "a"), id="a full KV budget is enough"),
        pytest.param([SMALL_A], Request(1, 101), (Way.GO, "a"), id="fits nowhere: refused there, with the figures"),
    ],
)
def test_of_several_a_request_goes_to(given: list[Candidate], asked: Request, expected: tuple[Way, str]) -> None:
    found, chosen = choose("m", given, asked)
    assert (found, chosen.name) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param((100, 4000, 0, 50), Request(150, 150), id="tokenized"),
        pytest.param((0, 400, 0, 50), Request(150, 0), id="text is guessed, and nothing certain"),
        pytest.param((100, 0, 0, 0), Request(100 + ANSWER_TOKENS, 101), id="as many as there is room for"),
        pytest.param((100, 0, 30, 0), Request(100 + ANSWER_TOKENS, 131), id="a resume needs one more than it has"),
        pytest.param((100, 0, 30, 50), Request(150, 150), id="max_tokens counts what was delivered"),
    ],
)
def test_what_is_known_of_a_request(given: tuple[int, int, int, int], expected: Request) -> None:
    assert request(*given, parked_at=None) == expected


@pytest.mark.parametrize(
    ("model", "name"),
    [("/models/Llama-3.2", "llama-3.2"), ("org/Qwen 3/", "qwen-3"), ("/", "model"), ("/m/.hidden_", "hidden")],
)
def test_the_default_name_of_a_model(model: str, name: str) -> None:
    assert default_name(model) == name


# Deployments as NAME=MODEL, a word: those that it means.
MEANT: dict[tuple[str, str], str] = {
    ("m=/a/m", "m"): "m",
    ("m=/a/m", "n"): "",
    ("m=/a/m second=/a/m", "m"): "m second",
    ("m=/a/m second=/a/m", "second"): "second",
    ("first=/a/m m=/a/M/", "m"): "m",
    ("first=/a/m m=/a/m/", "m"): "m first",
    ("first=/a/m second=/a/m", "m"): "first second",
    ("first=/a/m second=/a/m", "/a/m"): "",
    # A name that somebody gave is no model's, also when it is the default name of another model.
    ("m=/a/other second=/a/m", "m"): "m",
    ("m=/a/other second=/a/m", "other"): "m",
    ("m=/a/m second=/a/other", "other"): "second",
    # Two models may have one default name: the deployment that bears it says which; without one nobody knows.
    ("m=/a/m second=/b/m", "m"): "m",
    ("first=/a/m second=/b/m", "m"): "",
    ("first=/a/m second=/b/m", "second"): "second",
}


@pytest.mark.parametrize(("given", "names"), MEANT.items(), ids=str)
def test_a_word_means(given: tuple[str, str], names: str) -> None:
    deployed = [Spec(name, model) for name, model in (one.split("=") for one in given[0].split())]
    wishes = [Wish(spec, InstanceId(f"i-{spec.name}"), 0.0) for spec in deployed]
    assert " ".join(wish.spec.name for wish in meant(given[1], wishes)) == names


def test_waiting_in_vain_says_what_it_waited_for_and_when_to_come_back() -> None:
    error = waited_in_vain(door(S.STARTING))
    assert isinstance(error, NoReadyInstance)
    assert error.message == "m is STARTING: epoch 4 is LOADING, 43%"
    assert error.retry_after_s is not None and 1 <= error.retry_after_s <= 5


# resume, lost_rank_count: kind; None is a refusal.
KINDS: dict[tuple[bool, int], Kind | None] = {
    (False, 0): Kind.NEW,
    (True, 0): Kind.RESUMED,
    (True, 1): Kind.RESUMED,
    (True, 2): Kind.ALONE,
    (False, 2): Kind.ALONE,
    (True, 3): None,
    (False, 4): None,
}


@pytest.mark.parametrize(("given", "expected"), KINDS.items(), ids=str)
def test_a_request_is_of_a_kind(given: tuple[bool, int], expected: Kind | None) -> None:
    if expected is not None:
        assert kind(*given) is expected
        return
    with pytest.raises(RequestPoisoned) as refused:
        kind(*given)
    assert not refused.value.resumable


def test_the_order_of_turns() -> None:
    assert Kind.ALONE < Kind.RESUMED < Kind.NEW


@pytest.mark.parametrize(("other_count", "goes"), [(0, True), (1, False), (255, False)])
def test_one_that_runs_alone_waits_for_the_others(other_count: int, goes: bool) -> None:
    assert may_go_alone(other_count) is goes


# When the last turn began, and what the clock says: when the turn that counts began, and whether others are let in.
TURNS: dict[tuple[float | None, float], tuple[float, bool]] = {
    (None, 100.0): (100.0, False),
    (100.0, 100.0 + ALONE_WAIT_S - 0.1): (100.0, False),
    (100.0, 100.0 + ALONE_WAIT_S): (100.0, True),
    (100.0, 100.0 + ALONE_AGAIN_S - 0.1): (100.0, True),
    (100.0, 100.0 + ALONE_AGAIN_S): (100.0 + ALONE_AGAIN_S, False),
    (100.0, 500.0): (500.0, False),
}


@pytest.mark.parametrize(("given", "expected"), TURNS.items(), ids=str)
def test_an_instance_is_kept_free_in_turns(given: tuple[float | None, float], expected: tuple[float, bool]) -> None:
    begun_s = turn_begun_s(*given)
    assert (begun_s, not is_kept_free(begun_s, given[1])) == expected


def test_one_for_which_nobody_waits_is_not_kept_free() -> None:
    assert not is_kept_free(None, 100.0)


# Its kind, how long the silent one has run: whether it goes beside it.
BESIDE: dict[tuple[Kind, float], bool] = {
    (Kind.ALONE, 0.0): False,
    (Kind.RESUMED, 0.0): False,
    (Kind.NEW, ALONE_HOLD_S - 0.1): False,
    (Kind.ALONE, ALONE_HOLD_S): False,
    (Kind.ALONE, 10 * ALONE_HOLD_S): False,
    (Kind.RESUMED, ALONE_HOLD_S): True,
    (Kind.NEW, ALONE_HOLD_S): True,
}


@pytest.mark.parametrize(("given", "goes"), BESIDE.items(), ids=str)
def test_beside_one_that_went_alone_and_has_not_spoken(given: tuple[Kind, float], goes: bool) -> None:
    assert may_pass_a_silent_one(*given) is goes


@pytest.mark.parametrize(
    ("arrived_s", "away_since_s", "at_s"),
    [
        pytest.param(100.0, 100.0, 130.0, id="it came while the deployment was not READY"),
        pytest.param(100.0, 40.0, 130.0, id="it came later than that"),
        pytest.param(100.0, 129.9, 159.9, id="it waited for room before"),
    ],
)
def test_only_the_time_without_ready_is_a_queue_wait(arrived_s: float, away_since_s: float, at_s: float) -> None:
    assert gives_up_s(arrived_s, away_since_s, 30.0) == pytest.approx(at_s)
