"""How long epochs have lived, by what each look sees: the time, and the number of the epoch that lives."""

import pytest

from scheduler.scenes import CRASHED, I1, I2, epoch, wish
from thunderline.process.awake import LATE_S
from thunderline.scheduler.ages import Ages
from thunderline.scheduler.values import Wish

# The looks, and the age at each; None: no epoch lives.
LOOKS: dict[str, tuple[list[tuple[float, int | None]], list[float | None]]] = {
    "it grows with the time": ([(100.0, 4), (101.0, 4), (101.5, 4)], [0.0, 1.0, 1.5]),
    "each epoch begins at nothing": ([(100.0, 4), (101.0, 5), (102.0, 5)], [0.0, 0.0, 1.0]),
    "also when nothing lived between": ([(100.0, 4), (101.0, None), (102.0, 5)], [0.0, None, 0.0]),
    "a machine that slept three minutes adds next to nothing": (
        [(100.0, 4), (101.0, 4), (281.0, 4), (282.0, 4)],
        [0.0, 1.0, 1.0 + LATE_S, 2.0 + LATE_S],
    ),
    "one that sleeps before the first look says nothing": ([(0.0, None), (900.0, 4)], [None, 0.0]),
}


def living(number: int | None) -> Wish:
    return wish(epoch(3, 995.0, CRASHED)) if number is None else wish(epoch(number))


@pytest.mark.parametrize(("looks", "ages"), LOOKS.values(), ids=LOOKS.keys())
def test_an_epoch_is_as_old_as_we_were_awake(looks: list[tuple[float, int | None]], ages: list[float | None]) -> None:
    seen = Ages()
    assert [seen.look([living(number)], at_s).get(I1) for at_s, number in looks] == ages


def test_each_instance_has_its_own() -> None:
    seen, other = Ages(), wish(epoch(9), instance=I2, name="n")
    assert seen.look([living(4)], 100.0) == {I1: 0.0}
    assert seen.look([living(4), other], 101.0) == {I1: 1.0, I2: 0.0}
    assert seen.look([other], 102.0) == {I2: 1.0}
