"""Which commands a runner obeys, and what it keeps of them on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from thunderline.cluster import InstanceId, RankId, StoreId
from thunderline.cluster.errors import ClusterError, EpochConflict, StaleEpoch, WrongStore
from thunderline.process.entry import CannotStart
from thunderline.runner import ledger
from thunderline.runner.fence import INSTANCE_COUNT_MAX, Fence, Goal, Started, Verdict, adopt, judge, leave, stop

OURS, OTHER = StoreId("ours"), StoreId("other")
ONE = InstanceId("i1")
EMPTY = Fence()
AT_5 = Fence(OURS, {ONE: Started(5, b"placement")})

# fence, store, epoch, goal, placement -> verdict or error
CASES: dict[str, tuple[Fence, StoreId, int, Goal, bytes, Verdict | type[ClusterError]]] = {
    "a_runner_without_a_store_obeys_the_first": (EMPTY, OTHER, 1, Goal.PREPARED, b"p", Verdict.START),
    "another_store_is_refused": (AT_5, OTHER, 6, Goal.PREPARED, b"p", WrongStore),
    "another_store_may_not_even_end_a_rank": (AT_5, OTHER, 5, Goal.ABSENT, b"", WrongStore),
    "a_newer_epoch_starts": (AT_5, OURS, 6, Goal.PREPARED, b"p", Verdict.START),
    "a_newer_epoch_asked_for_ready_at_once_starts": (AT_5, OURS, 6, Goal.READY, b"p", Verdict.START),
    "an_older_epoch_is_stale": (AT_5, OURS, 4, Goal.PREPARED, b"placement", StaleEpoch),
    "an_older_epoch_asked_for_ready_is_stale": (AT_5, OURS, 4, Goal.READY, b"placement", StaleEpoch),
    "the_same_command_again_only_reports": (AT_5, OURS, 5, Goal.PREPARED, b"placement", Verdict.CONTINUE),
    "ready_after_prepared_is_not_stale": (AT_5, OURS, 5, Goal.READY, b"placement", Verdict.CONTINUE),
    "the_same_epoch_with_another_placement_is_a_conflict": (AT_5, OURS, 5, Goal.READY, b"q", EpochConflict),
    "absent_is_accepted_for_the_epoch": (AT_5, OURS, 5, Goal.ABSENT, b"", Verdict.END),
    "absent_is_accepted_for_an_older_epoch": (AT_5, OURS, 1, Goal.ABSENT, b"", Verdict.END),
    "absent_is_accepted_for_an_epoch_never_seen": (AT_5, OURS, 9, Goal.ABSENT, b"", Verdict.END),
}


@pytest.mark.parametrize("case", CASES)
def test_commands(case: str) -> None:
    fence, store, epoch, goal, placement, expected = CASES[case]
    if isinstance(expected, type):
        with pytest.raises(expected):
            judge(fence, store, RankId(ONE, epoch, 0), goal, placement)
        return
    verdict, after = judge(fence, store, RankId(ONE, epoch, 0), goal, placement)
    assert verdict is expected
    assert after.store == store
    if verdict is Verdict.START:
        assert after.started[ONE] == Started(epoch, placement)
    else:
        assert after.started == fence.started


def test_who_ended_with_its_runner_is_remembered_until_its_next_epoch(tmp_path: Path) -> None:
    two = Fence(OURS, {ONE: Started(5, b"p"), InstanceId("i2"): Started(7, b"q")})
    stopped = stop(two, [RankId(ONE, 5, 0), RankId(InstanceId("i2"), 6, 0)])
    ledger.write(tmp_path / "runner.json", stopped)
    assert ledger.read(tmp_path / "runner.json") == stopped
    assert [one.stopped for one in stopped.started.values()] == [True, False], "only the newest epoch is known"
    assert not judge(stopped, OURS, RankId(ONE, 6, 0), Goal.PREPARED, b"p")[1].started[ONE].stopped


I1, I2 = InstanceId("i1"), InstanceId("i2")
TWO = Fence(OURS, {I1: Started(5, b"p"), I2: Started(7, b"q")})

# fence, former store, epochs of i1 and i2 that are kept -> fence or error
ADOPTIONS: dict[str, tuple[Fence, StoreId, dict[InstanceId, int], Fence | type[ClusterError]]] = {
    "all_is_kept": (TWO, OURS, {I1: 5, I2: 7}, Fence(OTHER, TWO.started)),
    "what_is_not_named_is_forgotten": (TWO, OURS, {I1: 5}, Fence(OTHER, {I1: Started(5, b"p")}, forgotten=7)),
    "an_older_epoch_keeps_nothing": (TWO, OURS, {I1: 4}, Fence(OTHER, {}, forgotten=7)),
    "it_obeys_another_than_was_said": (TWO, StoreId("third"), {I1: 5}, WrongStore),
    "nothing_is_said_of_whom_it_obeys": (TWO, StoreId(""), {I1: 5}, WrongStore),
    "it_obeys_that_one_already": (replace(TWO, store=OTHER), OURS, {}, replace(TWO, store=OTHER)),
    "it_obeys_none": (EMPTY, StoreId(""), {}, Fence(OTHER)),
}


@pytest.mark.parametrize("case", ADOPTIONS)
def test_another_store_is_adopted(case: str) -> None:
    fence, former, epochs, expected = ADOPTIONS[case]
    keep = [RankId(instance, epoch, 0) for instance, epoch in epochs.items()]
    if isinstance(expected, type):
        with pytest.raises(expected, match="cluster adopt"):
            adopt(fence, OTHER, former, keep)
        return
    assert adopt(fence, OTHER, former, keep) == expected


def test_after_an_adoption_the_former_store_is_refused_and_what_is_forgotten_stays_stale() -> None:
    fence = adopt(TWO, OTHER, OURS, [RankId(I1, 5, 0)])
    with pytest.raises(WrongStore):
        judge(fence, OURS, RankId(I1, 6, 0), Goal.PREPARED, b"p")
    with pytest.raises(StaleEpoch):
        judge(fence, OTHER, RankId(I2, 7, 0), Goal.PREPARED, b"q")
    assert judge(fence, OTHER, RankId(I1, 5, 0), Goal.READY, b"p") == (Verdict.CONTINUE, fence)


def test_a_node_that_leaves_a_store_obeys_the_next_and_what_it_started_stays_stale() -> None:
    assert leave(TWO, OURS) == Fence(forgotten=7)
    assert leave(TWO, OTHER) == TWO
    assert leave(EMPTY, OURS) == EMPTY


def test_an_instance_that_is_undeployed_is_forgotten() -> None:
    verdict, fence = judge(TWO, OURS, RankId(I1, 5, 0), Goal.ABSENT, b"", forget=True)
    assert (verdict, fence) == (Verdict.END, Fence(OURS, {I2: Started(7, b"q")}, forgotten=5))
    assert (TWO.highest, fence.highest, EMPTY.highest) == (7, 7, 0)
    assert judge(fence, OURS, RankId(I1, 5, 0), Goal.ABSENT, b"", forget=True) == (Verdict.END, fence)


def test_a_stale_epoch_names_the_highest() -> None:
    with pytest.raises(StaleEpoch) as caught:
        judge(AT_5, OURS, RankId(ONE, 2, 0), Goal.PREPARED, b"placement")
    assert caught.value.facts["highest"] == "5"


def test_instances_have_epochs_of_their_own() -> None:
    verdict, after = judge(AT_5, OURS, RankId(InstanceId("i2"), 3, 0), Goal.PREPARED, b"p")
    assert verdict is Verdict.START
    assert set(after.started) == {ONE, "i2"}


def many(count: int) -> Fence:
    """After so many instances, each started once, as one store counts their epochs."""
    fence = EMPTY
    for epoch in range(1, count + 1):
        _, fence = judge(fence, OURS, RankId(InstanceId(f"i{epoch}"), epoch, 0), Goal.PREPARED, b"p")
    return fence


def test_what_is_kept_is_bounded_and_what_is_forgotten_stays_stale(tmp_path: Path) -> None:
    ledger.write(tmp_path / "runner.json", many(INSTANCE_COUNT_MAX + 3))
    fence = ledger.read(tmp_path / "runner.json")
    assert (len(fence.started), fence.forgotten) == (INSTANCE_COUNT_MAX, 3)
    for epoch in (1, 3):
        with pytest.raises(StaleEpoch):
            judge(fence, OURS, RankId(InstanceId(f"i{epoch}"), epoch, 0), Goal.PREPARED, b"p")
    verdict, _ = judge(fence, OURS, RankId(InstanceId("i4"), 4, 0), Goal.PREPARED, b"p")
    assert verdict is Verdict.CONTINUE
    verdict, _ = judge(fence, OURS, RankId(InstanceId("i1"), INSTANCE_COUNT_MAX + 4, 0), Goal.PREPARED, b"p")
    assert verdict is Verdict.START


def test_a_ledger_of_an_earlier_version_has_forgotten_nothing(tmp_path: Path) -> None:
    (tmp_path / "runner.json").write_text('{"store_id": "s", "instances": {}}')
    assert ledger.read(tmp_path / "runner.json") == Fence(StoreId("s"))


def test_the_ledger_gives_back_what_was_written(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "runner.json") == Fence()
    fence = replace(AT_5, forgotten=3)
    ledger.write(tmp_path / "runner.json", fence)
    assert ledger.read(tmp_path / "runner.json") == fence


@pytest.mark.parametrize("content", ["", "[]", '{"store_id": "s"}', '{"store_id": "s", "instances": {"i": 3}}'])
def test_a_ledger_that_is_not_ours_keeps_the_runner_from_starting(tmp_path: Path, content: str) -> None:
    (tmp_path / "runner.json").write_text(content)
    with pytest.raises(CannotStart, match=r"runner\.json"):
        ledger.read(tmp_path / "runner.json")
