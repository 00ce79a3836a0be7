"""A situation's expectation notices what is lacking, and what nobody expects."""

from typing import Any

import pytest

from lab.told import strange, unmet

BRIDGE = {"severity": "warning", "says": ["bridge0", "deletem"]}
FOUND = {"severity": "warning", "what": "bridge0 rules out RDMA", "why": "", "remedy": "`ifconfig bridge0 deletem en2`"}
NOTED = FOUND | {"severity": "note"}
DISK = {"severity": "warning", "what": "the disk is nearly full", "why": "", "remedy": ""}

# What is expected and never said, what doctor says; what is lacking, what is strange.
CASES: dict[str, tuple[list[Any], list[str], list[Any], list[Any], list[Any]]] = {
    "as expected": ([BRIDGE], [], [FOUND], [], []),
    "not said": ([BRIDGE], [], [DISK], [BRIDGE], []),
    "only noted": ([BRIDGE], [], [NOTED], [BRIDGE], []),
    "said, and nobody expects it": ([], [], [FOUND], [], [FOUND]),
    "noted, and nobody expects it": ([], [], [NOTED], [], []),
    "of the machine that runs the lab": ([], [], [DISK], [], []),
    "never to be said, be it a note": ([], ["RULES OUT"], [NOTED], [], [NOTED]),
}


@pytest.mark.parametrize(("expected", "never", "findings", "lacking", "more"), CASES.values(), ids=CASES.keys())
def test_what_is_lacking_or_strange_is_noticed(
    expected: list[Any], never: list[str], findings: list[Any], lacking: list[Any], more: list[Any]
) -> None:
    assert unmet(expected, findings) == lacking
    assert strange(expected, never, findings) == more
