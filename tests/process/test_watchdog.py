import asyncio
import threading
import time

import pytest

from thunderline.process.awake import LATE_S, AwakeClock
from thunderline.process.watchdog import LoopWatch, watched

# Seconds at which the thread looks, the beats that it sees then, and whether the loop stands.
LOOKS: dict[str, tuple[list[tuple[float, int]], bool]] = {
    "a loop that counts lives": ([(float(second), second) for second in range(30)], False),
    "one that does not, stands": ([(float(second), 1) for second in range(12)], True),
    "not before its time": ([(float(second), 1) for second in range(10)], False),
    "a machine that slept says nothing": ([(0, 1), (1, 1), (3600, 1), (3601, 1)], False),
    "one that counted meanwhile begins anew": ([(float(s), s // 9) for s in range(18)], False),
}


@pytest.mark.parametrize(("looks", "stands"), LOOKS.values(), ids=LOOKS.keys())
def test_whether_a_loop_stands(looks: list[tuple[float, int]], stands: bool) -> None:
    watch = LoopWatch(10.0)
    assert [watch.stands(beats, at_s) for at_s, beats in looks][-1] is stands


def test_a_machine_that_slept_makes_nobody_late() -> None:
    clock = AwakeClock()
    assert [clock.tick(at_s) for at_s in (1000.0, 1000.5, 1015.5, 1016.0)] == [0.0, 0.5, 0.5 + LATE_S, 1.0 + LATE_S]


async def test_a_blocked_loop_is_ended_from_its_thread() -> None:
    ended = threading.Event()
    async with watched(stands_s=0.2, beat_s=0.02, end=ended.set):
        await asyncio.sleep(0.4)
        assert not ended.is_set()
        # What a bug would do: the loop stands.
        block(ended)
    assert ended.is_set()


def block(ended: threading.Event) -> None:
    end_s = time.monotonic() + 5
    while not ended.wait(0.01) and time.monotonic() < end_s:
        pass
