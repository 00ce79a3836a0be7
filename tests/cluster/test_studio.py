"""Which port of which Mac is the one next to Ethernet."""

import pytest

from thunderline.cluster.studio import is_next_to_ethernet

# Model, its name, interface, receptacle.
CASES: dict[str, tuple[tuple[str, str, str, str], bool]] = {
    "of a Studio": (("Mac15,14", "Mac Studio", "en2", "1"), True),
    "of a Studio that tells its model alone": (("Mac15,14", "", "en2", "1"), True),
    "of a Studio of a model that nobody knows": (("Mac99,1", "Mac Studio", "en2", "1"), True),
    "by the interface, whatever the receptacle is called": (("Mac15,14", "Mac Studio", "en2", "6"), True),
    "by the receptacle where no interface is told": (("Mac15,14", "Mac Studio", "", "1"), True),
    "another port of a Studio": (("Mac15,14", "Mac Studio", "en3", "1"), False),
    "of a mini": (("Mac16,11", "Mac mini", "en2", "1"), False),
    "of nobody knows what": (("", "", "en2", "1"), False),
    "of a port that tells nothing": (("Mac15,14", "Mac Studio", "", ""), False),
}


@pytest.mark.parametrize(("told", "expected"), CASES.values(), ids=CASES.keys())
def test_the_port_next_to_ethernet(told: tuple[str, str, str, str], expected: bool) -> None:
    assert is_next_to_ethernet(*told) is expected
