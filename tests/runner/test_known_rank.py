"""One rank as its runner knows it: what goes down its stream, also when nobody reads and when the stream breaks."""

from pathlib import Path
from typing import Any

import pytest

from runner.little_model import make
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import RANK_LOST_FACT, ClusterError, InstanceFailed, RankHung
from thunderline.cluster.ranks import RankState
from thunderline.runner import known_rank, tokenizing
from thunderline.runner.fence import Goal
from thunderline.runner.generation import Generation
from thunderline.runner.known_rank import DOUBT_S, KnownRank, Outbox
from thunderline.runner.rank_life import Signal
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2

S = cluster_pb2


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ModelText:
    return tokenizing.read(make(tmp_path_factory.mktemp("known") / "little"))


def rank(words: ModelText) -> KnownRank:
    rank_id = RankId(InstanceId("i1"), 1, 0)
    return KnownRank(rank_id, cluster_pb2.Placement(), Path("/models/little"), notify=lambda: None, words=words)


def hello(state: Any, last_operation: int = 0) -> rank_pb2.Hello:
    return rank_pb2.Hello(state=state, last_operation=last_operation)


def prepared(words: ModelText) -> tuple[KnownRank, Outbox]:
    made = rank(words)
    return made, made.attach(hello(S.RANK_STATE_PREPARED))


def ready(words: ModelText) -> tuple[KnownRank, Outbox]:
    made, outbox = prepared(words)
    made.want(Goal.READY)
    for state in (S.RANK_STATE_LOADING, S.RANK_STATE_WARMING, S.RANK_STATE_READY):
        made.on_state(rank_pb2.StateChange(state=state))
    commands(outbox)
    return made, outbox


def commands(outbox: Outbox) -> list[str]:
    """What is queued, in order: "load", "insert 1", "remove 1", or "end" for a stream that should end."""
    found = []
    while not outbox.empty():
        command = outbox.get_nowait()
        if command is None:
            found.append("end")
        elif command.HasField("load"):
            found.append("load")
        else:
            kind = command.operation.WhichOneof("operation")
            assert kind is not None
            found.append(f"{kind} {command.operation.number}")
    return found


def begun(made: KnownRank, words: ModelText, **wish: Any) -> tuple[int, Generation]:
    """The key of a new sequence, and its text side."""
    generation = Generation(S.Generation(**wish), [5], 100, words)
    return made.insert(rank_pb2.Insert(), generation), generation


async def error_of(generation: Generation) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        async for _ in generation.deltas(None):
            pass
    return caught.value


def step(key: int, words: ModelText, text: str, **more: Any) -> rank_pb2.StepReport:
    ids = words.tokenizer.encode(text, add_special_tokens=False).ids
    return rank_pb2.StepReport(sequences=[rank_pb2.SequenceTokens(key=key, token_ids=ids, **more)])


def test_load_is_sent_when_both_the_goal_and_prepared_are_there(words: ModelText) -> None:
    first, outbox = prepared(words)
    assert commands(outbox) == []
    first.want(Goal.READY)
    first.want(Goal.READY)
    assert commands(outbox) == ["load"]
    second = rank(words)
    second.want(Goal.READY)
    assert commands(second.attach(hello(S.RANK_STATE_PREPARED))) == ["load"]


def test_load_waits_until_the_text_side_is_read(words: ModelText) -> None:
    made, outbox = prepared(words)
    made.words = None
    made.want(Goal.READY)
    assert commands(outbox) == []
    made.words = words
    made.maybe_load()
    assert commands(outbox) == ["load"]


def test_a_rank_that_dials_again_before_it_loads_is_told_again(words: ModelText) -> None:
    made, first = prepared(words)
    made.want(Goal.READY)
    made.detach(first)
    assert commands(made.attach(hello(S.RANK_STATE_PREPARED))) == ["load"]
    assert commands(first) == ["load", "end"]


def test_a_ready_rank_that_dials_again_is_not_told_to_load(words: ModelText) -> None:
    made, first = ready(words)
    made.detach(first)
    assert not made.is_ready
    assert commands(made.attach(hello(S.RANK_STATE_READY))) == []
    assert made.is_ready


def test_a_stop_string_removes_the_sequence_though_nobody_reads(words: ModelText) -> None:
    made, outbox = ready(words)
    key, generation = begun(made, words, stop=["brown"])
    made.on_step(step(key, words, "the quick brown fox"))
    assert generation.finished
    assert commands(outbox) == ["insert 1", "remove 2"]
    assert made.generations == {}


def test_a_sequence_that_the_engine_ended_is_not_removed(words: ModelText) -> None:
    made, outbox = ready(words)
    key, _ = begun(made, words)
    made.on_step(step(key, words, "the", finish_reason=S.FINISH_REASON_LENGTH))
    made.drop(key)
    assert commands(outbox) == ["insert 1"]


def test_news_of_a_sequence_that_nobody_waits_for_is_no_error(words: ModelText) -> None:
    made, _ = ready(words)
    made.on_step(step(9, words, "the"))
    made.on_reset(rank_pb2.EngineReset(keys=[9]))


def test_a_newer_stream_ends_the_older_and_its_requests_and_numbers_go_on(words: ModelText) -> None:
    made, older = ready(words)
    begun(made, words)
    begun(made, words)
    # The rank has heard of the first insert only.
    newer = made.attach(hello(S.RANK_STATE_READY, last_operation=1))
    assert commands(older)[-1] == "end"
    assert made.generations == {}
    begun(made, words)
    assert commands(newer) == ["insert 2"], "the rank has parked what it ran"
    made.detach(older)
    assert made.is_ready, "the end of an older stream does not touch the newer"


def test_no_key_comes_twice_though_numbers_do(words: ModelText) -> None:
    made, _ = ready(words)
    keys = [begun(made, words)[0], begun(made, words)[0]]
    made.attach(hello(S.RANK_STATE_READY, last_operation=1))
    keys += [begun(made, words)[0], begun(made, words)[0]]
    # The next runner of the same rank.
    later, _ = ready(words)
    later.attach(hello(S.RANK_STATE_READY, last_operation=3))
    keys.append(begun(later, words)[0])
    assert len(set(keys)) == 5
    assert 0 not in keys


def test_a_rank_whose_stream_broke_is_told_of_those_that_left_meanwhile_only(words: ModelText) -> None:
    made, outbox = ready(words)
    stays, _ = begun(made, words)
    leaves, _ = begun(made, words)
    breaks, _ = begun(made, words)
    commands(outbox)
    made.detach(outbox)
    assert list(made.generations) == [stays, leaves, breaks], "whether the rank has died is not known yet"
    made.drop(leaves)
    made.park(breaks)
    assert made.orphans == {leaves}
    again = made.attach(hello(S.RANK_STATE_READY, last_operation=3))
    assert [again.get_nowait().operation.remove.key for _ in range(again.qsize())] == [leaves]  # type: ignore[union-attr]


async def test_a_stream_that_broke_is_no_lost_rank(words: ModelText) -> None:
    made, outbox = ready(words)
    _, generation = begun(made, words)
    made.detach(outbox)
    assert made.broken_s is not None
    made.settle(made.broken_s + DOUBT_S - 0.1)
    assert made.generations
    made.settle(made.broken_s + DOUBT_S)
    error = await error_of(generation)
    assert isinstance(error, InstanceFailed)
    assert RANK_LOST_FACT not in error.facts
    assert generation.is_parked


async def test_a_rank_that_dies_right_after_its_stream_is_a_lost_one(words: ModelText) -> None:
    made, outbox = ready(words)
    _, generation = begun(made, words)
    made.detach(outbox)
    made.fail_generations(made.lost("ended: SIGNAL"))
    assert (await error_of(generation)).facts == {RANK_LOST_FACT: "1"}
    assert not generation.is_parked


@pytest.mark.parametrize(
    ("name", "told_to_end", "kind", "facts"),
    [
        pytest.param("PHASE_DEADLINE", False, InstanceFailed, {RANK_LOST_FACT: "1"}, id="failed"),
        pytest.param("RANK_HUNG", False, RankHung, {}, id="hung"),
        pytest.param("STOPPED", True, InstanceFailed, {}, id="told to end"),
    ],
)
async def test_requests_are_told_what_became_of_their_rank(
    words: ModelText, name: str, told_to_end: bool, kind: type[ClusterError], facts: dict[str, str]
) -> None:
    made, _ = ready(words)
    _, generation = begun(made, words)
    if told_to_end:
        made.want(Goal.ABSENT)
    else:
        made.fail(Signal.UNSERVABLE, name, "detail")
    error = await error_of(generation)
    assert type(error) is kind
    assert error.facts == facts


def test_a_rank_that_says_ready_at_hello_is_ready_whatever_was_known(words: ModelText) -> None:
    made = rank(words)
    engine = S.EngineFacts(vocabulary_size=420)
    made.attach(rank_pb2.Hello(state=S.RANK_STATE_READY, last_operation=7, engine=engine))
    assert made.is_ready
    assert (made.engine, made.operation_count) == (engine, 7)


def test_a_full_outbox_refuses_an_insert_and_keeps_a_removal_for_later(words: ModelText) -> None:
    made, outbox = ready(words)
    key, _ = begun(made, words)
    while not outbox.full():
        outbox.put_nowait(rank_pb2.AttachResponse())
    with pytest.raises(InstanceFailed):
        begun(made, words)
    made.drop(key)
    assert made.orphans == {key}
    assert outbox.qsize() == known_rank.OUTBOX_SIZE_MAX
    made.detach(outbox)
    assert commands(made.attach(hello(S.RANK_STATE_READY, last_operation=1))) == ["remove 2"]


def test_the_first_word_about_a_failure_stays(words: ModelText) -> None:
    made, _ = prepared(words)
    made.on_state(rank_pb2.StateChange(state=S.RANK_STATE_LOADING))
    cause = S.ExitCause(name="LOAD_FAILED", detail="bad weights", permanent=True)
    made.on_state(rank_pb2.StateChange(state=S.RANK_STATE_FAILED, cause=cause))
    made.on_state(rank_pb2.StateChange(state=S.RANK_STATE_FAILED, cause=S.ExitCause(name="OTHER")))
    assert made.state is RankState.FAILED
    assert made.cause is not None
    assert (made.cause.name, made.cause.state, made.cause.permanent) == ("LOAD_FAILED", RankState.LOADING, True)


def test_a_state_of_another_version_is_no_error(words: ModelText) -> None:
    made, _ = prepared(words)
    made.on_state(rank_pb2.StateChange(state=77))  # type: ignore[arg-type]
    assert made.state is RankState.PREPARED


def test_absent_is_final(words: ModelText) -> None:
    made, outbox = prepared(words)
    made.want(Goal.ABSENT)
    made.want(Goal.READY)
    assert made.state is RankState.STOPPING
    assert commands(outbox) == []
