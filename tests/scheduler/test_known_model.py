"""A model as placing takes it, from what a runner has told of it."""

import pytest

from thunderline.scheduler.known_model import UNTOLD, even, model
from thunderline.scheduler.placing.memory import Needs, with_activations
from thunderline.scheduler.placing.values import Ability, Model
from thunderline.v1 import cluster_pb2

FACTS = cluster_pb2.ModelFacts(
    architecture="little",
    layer_count=2,
    weight_bytes=1_160,
    kv_bytes_per_token=12,
    context_length_tokens=2_048,
    layers=[
        cluster_pb2.LayerFacts(weight_bytes=500, kv_bytes_per_token=8, read_bytes=100),
        cluster_pb2.LayerFacts(weight_bytes=500, kv_bytes_per_token=4, read_bytes=500, window_tokens=512),
    ],
    embedding_bytes=100,
    head_bytes=50,
    other_bytes=10,
    hidden_size=64,
    head_count=9,
    key_value_head_count=3,
    element_bytes=2,
    tensor_divisors=[
        cluster_pb2.TensorDivisor(name="num_attention_heads", count=9),
        cluster_pb2.TensorDivisor(name="num_key_value_heads", count=3),
        cluster_pb2.TensorDivisor(name="intermediate_size / 64", count=24),
        cluster_pb2.TensorDivisor(name="swa_num_attention_heads", count=18),
    ],
)
SPLITS = cluster_pb2.SplitFacts(
    pipeline=True, tensor=False, tensor_reason="it has no heads", tensor_whole_share=0.25, tensor_kv_whole_share=1.0
)


def test_everything_that_is_told_is_taken() -> None:
    assert model(FACTS, SPLITS) == Model(
        layer_bytes=(500, 500),
        embedding_bytes=100,
        head_bytes=50,
        other_bytes=10,
        layer_kv_bytes=(8, 4),
        head_count=9,
        kv_head_count=3,
        also_divided=(("intermediate_size / 64", 24), ("swa_num_attention_heads", 18)),
        activation_bytes=128,
        context_length_tokens=2_048,
        pipeline=Ability(True),
        tensor=Ability(False, "it has no heads"),
        tensor_whole_bytes=250,
        tensor_kv_whole_bytes=12,
        layer_read_bytes=(100, 500),
    )


def test_one_rank_needs_exactly_the_weights_that_are_told() -> None:
    whole = Needs(model(FACTS, None), 0).whole()
    assert (whole.fixed_bytes, whole.kv_bytes) == (with_activations(FACTS.weight_bytes), FACTS.kv_bytes_per_token)


def test_what_nobody_has_tried_is_neither_possible_nor_impossible() -> None:
    found = model(FACTS, None)
    assert (found.pipeline, found.tensor) == (Ability(None), Ability(None))


@pytest.mark.parametrize("splits", [None, SPLITS], ids=["before a try", "after it"])
def test_a_model_whose_layers_are_not_told_apart_is_not_divided(splits: cluster_pb2.SplitFacts | None) -> None:
    flat = cluster_pb2.ModelFacts(layer_count=3, weight_bytes=1_000, kv_bytes_per_token=10, context_length_tokens=7)
    found = model(flat, splits)
    assert (found.layer_bytes, found.layer_kv_bytes) == ((333, 333, 334), (3, 3, 4))
    assert found.context_length_tokens == 7
    assert found.pipeline == found.tensor == (Ability(False, UNTOLD) if splits else Ability(None))


def test_of_nothing_there_is_one_layer_of_nothing() -> None:
    assert model(cluster_pb2.ModelFacts(), None) == even(0, 0, 0, 1) == Model((0,))


def test_a_dense_model_reads_all_of_each_layer() -> None:
    dense = cluster_pb2.ModelFacts(layers=[cluster_pb2.LayerFacts(weight_bytes=5, read_bytes=5)])
    assert model(dense, None).layer_read_bytes == ()
    assert model(dense, None).layer_kv_bytes == (), "of unknown cost, not of none"
