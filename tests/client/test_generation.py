"""What the holder of a request makes for it, once."""

import uuid

from thunderline.client.generation import completed
from thunderline.v1 import cluster_pb2


def test_a_request_without_id_and_seed_gets_both() -> None:
    wish = cluster_pb2.Generation(model="demo", text="a")
    first, second = completed(wish), completed(wish)
    assert uuid.UUID(first.request_id) != uuid.UUID(second.request_id)
    assert first.sampling.seed != second.sampling.seed
    assert (first.model, first.text) == ("demo", "a")


def test_a_given_id_and_a_given_seed_are_kept() -> None:
    given = cluster_pb2.Generation(request_id=str(uuid.uuid4()), sampling=cluster_pb2.Sampling(seed=7, top_k=3))
    assert completed(given) == given


def test_the_callers_own_message_is_not_changed() -> None:
    wish = cluster_pb2.Generation(model="demo")
    completed(wish)
    assert wish == cluster_pb2.Generation(model="demo")
