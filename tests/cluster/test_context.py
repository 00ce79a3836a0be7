"""How long a sequence a model can take."""

from typing import Any

import pytest

from thunderline.cluster.context import context_length_tokens


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        # GPT-2's family has a table of positions, and reads beyond it without a word.
        ({"n_positions": 1024}, 1024),
        ({"n_positions": 2048, "n_ctx": 1024}, 1024),
        ({"max_seq_len": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 512}, "vocab_size": 10}, 512),
        ({}, 0),
        ({"max_position_embeddings": None, "n_ctx": True, "n_positions": -1}, 0),
        ({"max_position_embeddings": 10**12}, 2**31 - 1),
    ],
)
def test_the_smallest_that_the_config_names(config: dict[str, Any], tokens: int) -> None:
    assert context_length_tokens(config) == tokens
