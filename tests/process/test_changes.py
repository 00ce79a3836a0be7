"""A watch sees the newest state, never a queue of old ones, and ends when the role stops."""

import asyncio
import itertools

import pytest

from thunderline.cluster.errors import Draining
from thunderline.process.changes import Changes, watch

# No watch here waits for longer.
DEADLINE_S = 10


async def test_the_first_answer_comes_at_once_and_the_next_at_a_change() -> None:
    changes, state = Changes(), ["first"]
    watching = watch(changes, lambda: list(state), 0)
    assert await anext(watching) == ["first"]
    following = asyncio.ensure_future(anext(watching))
    done, _ = await asyncio.wait({following}, timeout=0.05)
    assert not done
    state.append("second")
    changes.notify()
    assert await asyncio.wait_for(following, DEADLINE_S) == ["first", "second"]


async def test_a_change_while_the_watcher_looks_away_is_not_lost() -> None:
    changes, state = Changes(), [0]
    watching = watch(changes, lambda: state[0], 0)
    await anext(watching)
    state[0] = 1
    changes.notify()
    assert await asyncio.wait_for(anext(watching), DEADLINE_S) == 1


async def test_many_changes_are_one_answer_with_the_newest() -> None:
    changes, state = Changes(), [0]
    watching = watch(changes, lambda: state[0], 0)
    await anext(watching)
    for number in range(1, 100):
        state[0] = number
        changes.notify()
    assert await asyncio.wait_for(anext(watching), DEADLINE_S) == 99
    following = asyncio.ensure_future(anext(watching))
    done, _ = await asyncio.wait({following}, timeout=0.05)
    assert not done
    following.cancel()


async def test_answers_keep_their_pace() -> None:
    changes, clock = Changes(), asyncio.get_running_loop().time
    watching = watch(changes, clock, 0.05)
    seen = []
    for _ in range(4):
        seen.append(await asyncio.wait_for(anext(watching), DEADLINE_S))
        changes.notify()
    assert min(after - before for before, after in itertools.pairwise(seen)) >= 0.045


async def test_two_watchers_see_every_change() -> None:
    changes = Changes()
    watches = [watch(changes, lambda: changes.version, 0) for _ in range(2)]
    for version in range(3):
        assert [await asyncio.wait_for(anext(one), DEADLINE_S) for one in watches] == [version] * 2
        changes.notify()


async def test_a_stop_ends_a_watch_that_waits() -> None:
    changes = Changes()
    watching = watch(changes, lambda: changes.version, 0)
    await anext(watching)
    following = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    changes.stop()
    with pytest.raises(Draining):
        await asyncio.wait_for(following, DEADLINE_S)


async def test_a_watch_of_a_stopped_role_ends_before_its_first_answer() -> None:
    changes = Changes()
    changes.stop()
    with pytest.raises(Draining):
        await anext(watch(changes, lambda: changes.version, 0))


async def test_a_change_that_was_seen_before_is_not_waited_for() -> None:
    changes = Changes()
    changes.notify()
    assert await asyncio.wait_for(changes.after(0), DEADLINE_S) == 1
