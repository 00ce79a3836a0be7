"""Memory bandwidth by the name of a chip."""

import pytest

from thunderline.cluster.chips import GB_PER_S, memory_bytes_per_s

CHIPS = {
    "as macOS says it": ("Apple M3 Ultra", 819_000_000_000),
    "as people do": ("M4 Pro", 273_000_000_000),
    "of the plain chip": ("Apple M1", 68_250_000_000),
    "of two versions the lesser": ("Apple M4 Max", 410_000_000_000),
    "small letters": ("m2 max", 400_000_000_000),
    "one more word": ("Apple M4 (Virtual)", 120_000_000_000),
    "a chip that is not there yet": ("Apple M9 Ultra", 0),
    "no chip of Apple's": ("AMD EPYC 9654", 0),
    "a number that only begins alike": ("Apple M10", 0),
    "nothing": ("", 0),
}


@pytest.mark.parametrize(("chip", "bytes_per_s"), CHIPS.values(), ids=CHIPS.keys())
def test_bandwidth(chip: str, bytes_per_s: int) -> None:
    assert memory_bytes_per_s(chip) == bytes_per_s


def test_more_of_a_chip_reads_faster() -> None:
    for generation in range(1, 6):
        found = [
            GB_PER_S[name] for rank in ("", " Pro", " Max", " Ultra") if (name := f"M{generation}{rank}") in GB_PER_S
        ]
        assert found == sorted(found)
        assert len(set(found)) == len(found)
