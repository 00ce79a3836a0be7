"""Seeds as people write them."""

import pytest

from thunderline.cluster.seeds import seed_target


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        ("ada", "ada:7401"),
        (" ada.local ", "ada.local:7401"),
        ("ada.local:9000", "ada.local:9000"),
        ("192.168.4.1", "192.168.4.1:7401"),
        ("192.168.4.1:9000", "192.168.4.1:9000"),
        ("fd00::1", "[fd00::1]:7401"),
        ("[fd00::1]", "[fd00::1]:7401"),
        ("[fd00::1]:9000", "[fd00::1]:9000"),
    ],
)
def test_a_seed_becomes_what_can_be_dialled(seed: str, expected: str) -> None:
    assert seed_target(seed, 7401) == expected
