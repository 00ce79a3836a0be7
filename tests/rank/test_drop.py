"""After an exception everybody whose news are lost is named: nobody waits for an answer that does not come."""

from collections.abc import Sequence
from typing import Any

import pytest

from rank.test_engine import NEVER, PROMPTS, SAMPLED, Story
from rank.test_parking import resume
from thunderline.rank.engine import Engine


class FullMemory(Engine):
    """Raises as soon as something is to be kept."""

    def _keep(self, tokens: Sequence[int], caches: list[Any]) -> None:
        raise MemoryError


def test_who_finished_in_the_very_step_is_lost_too(tiny: Any) -> None:
    one = Story(FullMemory(tiny, [NEVER], 100_000))
    ends, goes_on = one.insert(PROMPTS[5], max_tokens=3), one.insert(PROMPTS[3])
    with pytest.raises(MemoryError):
        one.run()
    assert ends not in one.finish
    assert sorted(one.engine.drop()) == [ends, goes_on]


def test_who_was_told_its_end_before_does_not_come_again(tiny: Any) -> None:
    def hook(engine: Engine) -> None:
        if one.finish:
            raise RuntimeError

    one = Story(Engine(tiny, [NEVER], 100_000, on_step=hook))
    ends, goes_on = one.insert(PROMPTS[5], max_tokens=3), one.insert(PROMPTS[3])
    with pytest.raises(RuntimeError):
        one.run()
    assert list(one.finish) == [ends]
    assert one.engine.drop() == [goes_on]


def test_a_resume_that_was_owed_its_end_is_lost(tiny: Any) -> None:
    broken = False

    def hook(engine: Engine) -> None:
        if broken:
            raise RuntimeError

    one = Story(Engine(tiny, [NEVER], 100_000, on_step=hook))
    first = one.insert(PROMPTS[3], SAMPLED[3])
    one.run(until=lambda: len(one.tokens[first]) >= 23)
    one.engine.park(first)
    broken = True
    key = resume(one, 3, one.tokens[first][:20])
    with pytest.raises(RuntimeError):
        one.run()
    assert one.engine.drop() == [key]
