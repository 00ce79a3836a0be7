"""What a file's tensors become in memory: names and formats as models are published."""

from math import prod
from typing import Any

import pytest

from thunderline.runner.loaded_weights import LAYER_COUNT_MAX, Loaded, Tensor, element_bytes, loaded

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "U32": 4, "I32": 4}


def tensor(name: str, *shape: int, dtype: str = "BF16") -> Tensor:
    return Tensor(name, dtype, shape, prod(shape) * ITEM_BYTES[dtype])


def layer(number: int, prefix: str = "model.layers", width: int = 10) -> list[Tensor]:
    return [
        tensor(f"{prefix}.{number}.self_attn.q_proj.weight", width, 10),
        tensor(f"{prefix}.{number}.norm.weight", 10),
    ]


LAYER_BYTES = 220
EMBEDDING, HEAD, NORM = (
    tensor("model.embed_tokens.weight", 100, 10),
    tensor("lm_head.weight", 100, 10),
    tensor("model.norm.weight", 10),
)
PLAIN = [EMBEDDING, *layer(0), *layer(1), NORM, HEAD]
FP8 = [
    tensor("model.layers.0.mlp.up_proj.weight", 256, 256, dtype="F8_E4M3"),
    tensor("model.layers.0.mlp.up_proj.weight_scale_inv", 2, 2, dtype="F32"),
]
EXPERTS = [tensor(f"model.layers.0.mlp.experts.{number}.up_proj.weight", 8, 10) for number in range(4)]
PACKED_INTEGERS = [
    tensor("model.layers.0.mlp.up_proj.weight_packed", 10, 4, dtype="I32"),
    tensor("model.layers.0.mlp.up_proj.weight_scale", 10, 2),
    tensor("model.layers.0.mlp.up_proj.weight_shape", 2, dtype="I32"),
]
AWQ = [
    tensor("model.layers.0.mlp.up_proj.qweight", 32, 4, dtype="I32"),
    tensor("model.layers.0.mlp.up_proj.qzeros", 1, 4, dtype="I32"),
    tensor("model.layers.0.mlp.up_proj.scales", 1, 32, dtype="F16"),
]
STACKED = [tensor("model.layers.0.mlp.switch_mlp.up_proj.weight", 4, 8, 10), tensor("model.layers.0.norm.weight", 10)]

# Tensors, config, layers that the config names -> what is in memory. `doubts` are checked apart.
CASES: dict[str, tuple[list[Tensor], dict[str, Any], int, dict[str, Any]]] = {
    "a head of its own": (
        PLAIN,
        {"tie_word_embeddings": False},
        2,
        {"layer_bytes": (220, 220), "embedding_bytes": 2000, "head_bytes": 2000, "other_bytes": 20, "is_tied": False},
    ),
    "a tied head that the files have all the same": (
        PLAIN,
        {"tie_word_embeddings": True},
        2,
        {"embedding_bytes": 2000, "head_bytes": 0, "is_tied": True},
    ),
    "no head in the files": (PLAIN[:-1], {}, 2, {"embedding_bytes": 2000, "head_bytes": 0, "is_tied": True}),
    "layers that differ": (
        [*layer(0, width=30), *layer(1)],
        {},
        2,
        {"layer_bytes": (620, 220)},
    ),
    "rotary tables": (
        [*PLAIN, tensor("model.layers.0.self_attn.rotary_emb.inv_freq", 32), tensor("rope.inv_freq", 32)],
        {},
        2,
        {"layer_bytes": (220, 220), "other_bytes": 20},
    ),
    "causal masks of old files": (
        [
            *layer(0, "h"),
            tensor("h.0.attn.bias", 1, 1, 64, 64, dtype="U8"),
            tensor("h.0.attn.masked_bias", dtype="F32"),
            tensor("h.0.mlp.attention.bias", 10),
        ],
        {},
        1,
        {"layer_bytes": (240,)},
    ),
    "an extra prediction layer behind the last": (
        [*PLAIN, *layer(2), tensor("model.layers.2.eh_proj.weight", 10, 20)],
        {},
        2,
        {"layer_bytes": (220, 220)},
    ),
    "an extra prediction layer beside them": ([*PLAIN, *layer(0, "mtp.layers")], {}, 2, {"layer_bytes": (220, 220)}),
    "a tower for pictures": (
        [
            *layer(0, "model.language_model.layers"),
            *layer(0, "model.visual.blocks", 90),
            tensor("mm_projector.weight", 9),
        ],
        {},
        1,
        {"layer_bytes": (220,), "other_bytes": 0},
    ),
    "layers under another name": (
        [*layer(0, "transformer.h"), *layer(1, "transformer.h")],
        {},
        0,
        {"layer_bytes": (220, 220)},
    ),
    "fp8 with scales for blocks": (FP8, {}, 1, {"layer_bytes": (2 * 256 * 256,), "passing_bytes": 7 * 256 * 256}),
    "experts that are stacked": (EXPERTS, {}, 1, {"layer_bytes": (640,), "passing_bytes": 640}),
    "experts of which a token is sent to one of four": (
        [*EXPERTS, tensor("model.layers.0.mlp.shared_experts.up_proj.weight", 8, 10)],
        {"num_experts": 4, "num_experts_per_tok": 1},
        1,
        {"layer_bytes": (800,), "layer_read_bytes": (320,)},
    ),
    "stacked experts of which a token is sent to two of four": (
        STACKED,
        {"n_routed_experts": 4, "num_experts_per_tok": 2},
        1,
        {"layer_bytes": (660,), "layer_read_bytes": (340,)},
    ),
    "experts, and no word on how many a token is sent to": (EXPERTS, {}, 1, {"layer_read_bytes": (640,)}),
    "integers with scales for groups": (PACKED_INTEGERS, {}, 1, {"layer_bytes": (160 + 2 * 40,)}),
    "awq": (AWQ, {}, 1, {"layer_bytes": (512 + 2 * 64,)}),
    "nothing": ([], {}, 0, {"layer_bytes": (), "embedding_bytes": 0, "is_tied": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_in_memory(case: str) -> None:
    tensors, config, layer_count, wanted = CASES[case]
    found = loaded(tensors, config, layer_count)
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("tensors", "config", "doubt"),
    [
        pytest.param(PLAIN, {}, "whether the head is the embedding", id="a head, and no word on it"),
        pytest.param(FP8[:1], {}, "no scales for blocks", id="fp8 without scales"),
        pytest.param(AWQ, {"quantization_config": {"quant_method": "awq"}}, "packed by awq", id="a packing of others"),
        pytest.param([EMBEDDING], {}, "do not tell its layers apart", id="no layers"),
        pytest.param(layer(1), {}, "nothing of layer 0", id="a layer is missing"),
    ],
)
def test_what_is_not_known_is_said(tensors: list[Tensor], config: dict[str, Any], doubt: str) -> None:
    assert any(doubt in one for one in loaded(tensors, config, 2).doubts)


def test_all_bytes_are_in_one_place() -> None:
    found = loaded(PLAIN, {"tie_word_embeddings": False}, 2)
    assert found.total_bytes == sum(one.size_bytes for one in PLAIN)
    assert found.doubts == ()


def test_order_does_not_matter() -> None:
    assert loaded(PLAIN[::-1], {}, 2) == loaded(PLAIN, {}, 2)


def test_a_layer_without_end_takes_no_memory_of_ours() -> None:
    found = loaded([tensor("model.layers.99999999999999.norm.weight", 10)], {}, 0)
    assert len(found.layer_bytes) == LAYER_COUNT_MAX


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        pytest.param([tensor("a", 100, dtype="F32")], 4, id="float32"),
        pytest.param([tensor("a", 100), tensor("b", 8, dtype="F32")], 2, id="bfloat16 with a small float32 bias"),
        pytest.param([tensor("a", 900, dtype="U32"), tensor("b", 10, dtype="F16")], 2, id="packed with float16 scales"),
        pytest.param([], 2, id="none"),
    ],
)
def test_size_of_a_number(tensors: list[Tensor], size: int) -> None:
    assert element_bytes(tensors) == size


def test_scales_of_fp8_do_not_say_how_the_engine_computes() -> None:
    many = [tensor(f"model.layers.0.a{place}.weight_scale_inv", 90, dtype="F32") for place in range(9)]
    assert loaded([*FP8, *many, NORM], {}, 1).element_bytes == 2


def test_an_empty_one() -> None:
    assert Loaded().total_bytes == 0
