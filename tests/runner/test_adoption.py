"""What a map file says to a runner that did not make it."""

from dataclasses import replace

import pytest

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark
from thunderline.runner.adoption import DIAL_IN_S, UNWRITTEN_S, Finding, Seen, entered_s, judge, rank_of

RANK = RankId(InstanceId("i1"), 3, 0)
LIVING = Seen(RANK, SIZE_BYTES, is_locked=True, mark=RankMark(pid=7), age_s=1000.0)
UNWRITTEN = replace(LIVING, mark=None, age_s=UNWRITTEN_S - 0.1)
OLD = replace(UNWRITTEN, age_s=UNWRITTEN_S)

CASES: dict[str, tuple[Seen, Finding]] = {
    "locked_and_its_process_lives": (LIVING, Finding.ADOPT),
    "its_age_is_nothing": (replace(LIVING, age_s=0.0), Finding.ADOPT),
    "unlocked_its_process_has_ended": (replace(LIVING, is_locked=False), Finding.ENDED),
    "unlocked_without_a_pid_it_may_still_come": (replace(UNWRITTEN, is_locked=False), Finding.WAIT),
    "and_has_not_come_after_ten_seconds": (replace(OLD, is_locked=False), Finding.ENDED),
    "locked_and_not_written_yet": (UNWRITTEN, Finding.WAIT),
    "locked_by_nobody_that_we_know": (OLD, Finding.FOREIGN),
    "a_mark_without_a_pid_is_none": (replace(UNWRITTEN, mark=RankMark()), Finding.WAIT),
    "an_empty_file_is_one_that_is_being_made": (replace(UNWRITTEN, size_bytes=0, is_locked=False), Finding.WAIT),
    "and_after_a_while_one_that_was_left": (replace(OLD, size_bytes=0, is_locked=False), Finding.ENDED),
    "a_file_of_another_size": (replace(OLD, size_bytes=5000, is_locked=False), Finding.FOREIGN),
    "a_file_of_another_name": (replace(OLD, rank=None, is_locked=False), Finding.FOREIGN),
    "a_living_map_of_another_name": (replace(LIVING, rank=None), Finding.FOREIGN),
}


@pytest.mark.parametrize("case", CASES)
def test_a_map_says(case: str) -> None:
    seen, finding = CASES[case]
    assert judge(seen) is finding


@pytest.mark.parametrize("rank", [RANK, RankId(InstanceId("a-b_1-2"), 12, 34), RankId(InstanceId("i" * 64), 0, 0)])
def test_a_map_is_named_after_its_rank(rank: RankId) -> None:
    assert rank_of(f"{rank}.map") == rank


@pytest.mark.parametrize(
    "name", ["notes.map", "i1-3.map", "i1-3-0.log", "i1-3-0.map.bak", "i1-x-0.map", "../i1-3-0.map", "i1-03-0.map"]
)
def test_another_name_is_nobodys(name: str) -> None:
    assert rank_of(name) is None


LOADING = RankMark(boot_id="b", entered_s=900.0)
# map, how long the phase may last -> when it began, at 1,000
PHASES: dict[str, tuple[RankMark, float | None, float]] = {
    "it_counts_from_where_the_map_says": (LOADING, 120.0, 900.0),
    "one_that_is_over_has_time_to_dial_in": (LOADING, 60.0, 940.0 + DIAL_IN_S),
    "a_short_one_begins_now_at_the_latest": (LOADING, 3.0, 1000.0),
    "a_phase_without_a_deadline_begins_now": (LOADING, None, 1000.0),
    "times_of_before_a_reboot_say_nothing": (replace(LOADING, boot_id="a"), 120.0, 1000.0),
    "nor_does_a_map_without_one": (RankMark(boot_id="b"), 120.0, 1000.0),
}


@pytest.mark.parametrize("case", PHASES)
def test_the_phase_of_an_adopted_rank_began(case: str) -> None:
    mark, allowed_s, began_s = PHASES[case]
    assert entered_s(mark, "b", allowed_s, 1000.0) == began_s
