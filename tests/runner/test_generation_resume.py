"""What a rank is told of a request that comes again."""

from pathlib import Path
from typing import Any

import pytest

from runner.little_requests import FOX
from runner.little_runner import running
from thunderline.runner.generation import Generation
from thunderline.runner.known_rank import KnownRank
from thunderline.v1 import rank_pb2


@pytest.mark.parametrize(
    ("more", "resume"),
    [
        pytest.param({"resume": True}, True, id="nothing was delivered"),
        pytest.param({"resume_token_ids": [7]}, True, id="a token was delivered"),
        pytest.param({}, False, id="a new one"),
    ],
)
async def test_the_rank_hears_that_it_is_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], resume: bool
) -> None:
    told: list[bool] = []
    insert = KnownRank.insert

    def listening(self: KnownRank, one: rank_pb2.Insert, generation: Generation) -> int:
        told.append(one.resume)
        return insert(self, one, generation)

    async with running(tmp_path) as little:
        await little.ready()
        monkeypatch.setattr(KnownRank, "insert", listening)
        await little.deltas(text=FOX, max_tokens=3, **more)
    assert told == [resume]
