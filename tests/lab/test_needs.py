"""Where no lab can be built the tests say why; in CI they fail."""

from dataclasses import replace

import pytest

from lab.needs import Machine, demand, missing

GOOD = Machine("linux", is_root=True, has_ip=True, has_tun=True)
MISSING = {
    "a Mac": (replace(GOOD, platform="darwin"), "not Linux"),
    "not root": (replace(GOOD, is_root=False), "needs root"),
    "no iproute2": (replace(GOOD, has_ip=False), "needs iproute2"),
    "no tun": (replace(GOOD, has_tun=False), "/dev/net/tun"),
}


def test_where_a_lab_can_be_built_nothing_is_missing() -> None:
    assert missing(GOOD) == ""
    demand(GOOD, is_ci=True)


@pytest.mark.parametrize(("machine", "said"), MISSING.values(), ids=MISSING.keys())
def test_what_is_missing_is_said_and_fails_in_ci(machine: Machine, said: str) -> None:
    assert said in missing(machine)
    with pytest.raises(pytest.skip.Exception, match=said):
        demand(machine, is_ci=False)
    with pytest.raises(pytest.fail.Exception, match="in CI the lab has to run"):
        demand(machine, is_ci=True)
