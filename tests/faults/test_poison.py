"""A request that raises in every engine, and one that ends every rank: it is isolated, and refused in the end."""

import asyncio
import json
import uuid
from collections.abc import Coroutine
from typing import Any

import pytest

from faults import hooked_rank
from faults.followers import follow, undisturbed_answers
from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import RequestPoisoned
from thunderline.v1 import cluster_pb2

WAIT_S = 120.0


async def poisonous(up: Installation, seed: int, request_id: str, ends: list[str]) -> None:
    wish = cluster_pb2.Generation(model=DEMO, text=f"{seed} Once", max_tokens=20, ignore_eos=True)
    wish.request_id, wish.sampling.seed = request_id, seed
    async with SchedulerClient(up.target("scheduler")) as client:
        try:
            async for delta in client.generate(wish, WAIT_S):
                assert not delta.token_ids, "the fault had no effect"
        except RequestPoisoned as error:
            ends.append(error.message)


@pytest.fixture(scope="module")
def undisturbed(hooked: Installation) -> list[object]:
    return undisturbed_answers(hooked)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seed", "loses_ranks"),
    [
        pytest.param(hooked_rank.RAISES, False, id="raises in every engine"),
        pytest.param(hooked_rank.KILLS, True, id="ends every rank"),
    ],
)
def test_a_poisonous_request_is_isolated_and_refused(
    hooked: Installation, undisturbed: list[object], seed: int, loses_ranks: bool, evidence: dict[str, Any]
) -> None:
    until("a good answer", hooked.answers, 60)
    pid, request_id, ends = hooked.pid("rank"), str(uuid.uuid4()), list[str]()

    def fault() -> Coroutine[Any, Any, None]:
        return poisonous(hooked, seed, request_id, ends)

    followers, _ = asyncio.run(follow(hooked, fault))
    assert [one.answer for one in followers] == undisturbed
    assert len(ends) == 1, "it was not refused"
    assert (hooked.pid("rank") != pid) is loses_ranks
    until("a good answer", hooked.answers, 60)
    assert [one["state"] for one in hooked.deployments()] == ["DEPLOYMENT_STATE_READY"]
    told = [json.loads(line) for line in hooked.run("events", "--json", timeout_s=20).stdout.splitlines()]
    poisoned = [one["text"] for one in told if one["kind"] == "REQUEST_POISONED" and request_id in one["text"]]
    assert len(poisoned) == 1, told
    how = "ends_every_rank" if loses_ranks else "raises_in_every_engine"
    evidence[f"poison_{how}_streams_equal"] = len(followers)
    evidence[f"poison_{how}_told"] = ends[0]
