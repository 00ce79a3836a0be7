"""What a runner has told of a model, as placing takes it. Pure."""

from thunderline.scheduler.placing.values import Ability, Model
from thunderline.v1 import cluster_pb2

UNTOLD = "the names of its weights do not tell its layers apart"
NOT_TRIED = Ability()


def model(facts: cluster_pb2.ModelFacts, splits: cluster_pb2.SplitFacts | None) -> Model:
    """`splits`: None where nobody has tried. Raises nothing, whatever is missing."""
    layers = facts.layers
    if not layers:
        return _of_layers_untold(facts, splits)
    layer_bytes = tuple(one.weight_bytes for one in layers)
    kv_bytes = tuple(one.kv_bytes_per_token for one in layers)
    read_bytes = tuple(one.read_bytes for one in layers)
    tensor_share = splits.tensor_whole_share if splits else 0.0
    kv_share = splits.tensor_kv_whole_share if splits else 0.0
    return Model(
        layer_bytes=layer_bytes,
        embedding_bytes=facts.embedding_bytes,
        head_bytes=facts.head_bytes,
        other_bytes=facts.other_bytes,
        is_tied=facts.is_tied,
        layer_kv_bytes=kv_bytes if any(kv_bytes) else (),
        head_count=facts.head_count,
        kv_head_count=facts.key_value_head_count,
        also_divided=_also_divided(facts),
        activation_bytes=facts.hidden_size * facts.element_bytes,
        context_length_tokens=facts.context_length_tokens,
        pipeline=Ability(splits.pipeline, splits.pipeline_reason) if splits else NOT_TRIED,
        tensor=Ability(splits.tensor, splits.tensor_reason) if splits else NOT_TRIED,
        tensor_whole_bytes=int(tensor_share * sum(layer_bytes)),
        tensor_kv_whole_bytes=int(kv_share * sum(kv_bytes)),
        layer_read_bytes=read_bytes if any(read_bytes) and read_bytes != layer_bytes else (),
    )


def even(
    weight_bytes: int, kv_bytes_per_token: int, context_length_tokens: int, layer_count: int, can: Ability = NOT_TRIED
) -> Model:
    """Of which no more is known: as if all were in its layers, one like the other."""
    return Model(
        layer_bytes=_parts(weight_bytes, layer_count),
        layer_kv_bytes=_parts(kv_bytes_per_token, layer_count) if kv_bytes_per_token else (),
        context_length_tokens=context_length_tokens,
        pipeline=can,
        tensor=can,
    )


def _of_layers_untold(facts: cluster_pb2.ModelFacts, splits: cluster_pb2.SplitFacts | None) -> Model:
    """Nobody can say which part of it is how large."""
    can = Ability(False, UNTOLD) if splits else NOT_TRIED
    count = max(1, facts.layer_count)
    return even(facts.weight_bytes, facts.kv_bytes_per_token, facts.context_length_tokens, count, can)


def _parts(total: int, count: int) -> tuple[int, ...]:
    """As many, as even as can be."""
    return tuple(total * (place + 1) // count - total * place // count for place in range(count))


def _also_divided(facts: cluster_pb2.ModelFacts) -> tuple[tuple[str, int], ...]:
    """Less the heads, which have words of their own."""
    heads = {facts.head_count, facts.key_value_head_count}
    told = [(one.name, one.count) for one in facts.tensor_divisors]
    return tuple((name, count) for name, count in told if not ("head" in name and count in heads))
