"""How long a sequence a model can take, as its config.json says it."""

from collections.abc import Mapping
from typing import Any

# By the names that model families use for it.
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "model_max_length",
)
# What does not fit the wire's 32 bits is no figure of a model.
_TOKENS_MAX = 2**31 - 1


def context_length_tokens(config: Mapping[str, Any]) -> int:
    """The smallest that it names, since beyond a table of positions lies other memory; 0 when it is silent.

    Models with pictures keep the language model's figures one level down, under text_config.
    """
    text = config.get("text_config")
    values = {**config, **text} if isinstance(text, Mapping) else config
    named = [values[key] for key in _KEYS if type(values.get(key)) is int and values[key] > 0]
    return min([*named, _TOKENS_MAX]) if named else 0
