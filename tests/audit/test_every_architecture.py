"""Every architecture of the installed mlx-lm gets its verdicts from the audit that a runner starts, in a child each:
what may be done in a batch, and how it can be divided.

configs.json: a small config of each architecture as its model folders have it, with more layers, wider windows and more
experts than the audit's tiny copy; the names stand here and nowhere in the code that decides.
"""

import asyncio
import importlib.util
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from thunderline.runner.answers import Answer, Splits
from thunderline.runner.models import ask_the_engine, audit_command

CONFIGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configs.json").read_text())
BATCH_COUNT_MIN = 85
UNBUILT, REFUSED, BATCH = "cannot be built tiny", "refused", "batch"
# mlx-lm 0.32.2: everything else may be batched.
NOT_BATCH = {
    # A state runs through the padding of shorter prompts.
    **dict.fromkeys(("baichuan_m1", "bailing_moe_linear", "jamba", "longcat_flash_ngram"), "one_prompt_at_a_time"),
    **dict.fromkeys(("mamba", "nemotron_h", "olmo_hybrid", "rwkv7"), "one_prompt_at_a_time"),
    # Positions, windows or blocks are counted from the padding on.
    **dict.fromkeys(("afm7", "minimax_m3_vl", "recurrent_gemma"), "one_sequence_at_a_time"),
    # Their masks or offsets raise with more than one row.
    **dict.fromkeys(("gemma2", "gpt_bigcode"), "one_sequence_at_a_time"),
    # The answer depends on how the prompt is cut into chunks.
    "plamo3": "one_sequence_at_a_time",
    # Caches of their own, that mlx-lm's batches do not take.
    **dict.fromkeys(("deepseek_v41", "llama4"), REFUSED),
}
# Those of whom it was known before there was an audit.
KNOWN = {"baichuan_m1", "bailing_moe_linear", "jamba", "longcat_flash_ngram", "mamba", "olmo_hybrid", "plamo3"}
KNOWN |= {"recurrent_gemma"}
# On Linux without a GPU: Metal kernels, a package and a manifest of packed weights that are not there; phi3small ends
# the process in MLX's block-sparse product.
NOT_BUILT = {"bitnet", "muse_spark", "olmo", "prism_hadamard_qwen35", "phi3small"}
PIPELINE_COUNT_MIN = 90
# mlx-lm 0.32.2: the layers of everything else can be on several ranks.
NO_PIPELINE = {
    # Layers that give more than a hidden state, or take the keys of others.
    *("gemma3n", "gemma4", "gemma4_text", "hunyuan", "kimi_k3", "rwkv7"),
    # Two lists of layers, or layers whose weights are used from outside.
    *("afm7", "iquestloopcoder"),
    # The embedding goes into each layer.
    "talkie",
}
# mlx-lm brings a `shard` for their layers, and two ranks answer as one.
TENSOR = {
    *(
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "exaone_moe",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "gpt_oss",
    ),
    *("iquestloopcoder", "kimi_k25", "kimi_k3", "llama", "longcat_flash", "longcat_flash_ngram", "minimax"),
    *("minimax_m3_vl", "ministral3", "mistral4", "qwen2", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe", "step3p5"),
}
# For `make test`: one of each verdict.
SOME = ("llama", "gemma3_text", "mamba", "recurrent_gemma", "llama4", "phi3small")

found: dict[str, tuple[str, str]] = {}
found_splits: dict[str, Splits] = {}


def verdict(answer: Answer) -> tuple[str, str]:
    """In a word, and why."""
    if "tiny copy cannot be made" in answer.batching_reason:
        return UNBUILT, answer.batching_reason
    if answer.supported:
        return answer.batching, answer.batching_reason
    # A child that crashed, or that could not even build the model.
    is_unbuilt = "cannot build" in answer.reason or "the audit of" in answer.reason
    return UNBUILT if is_unbuilt else REFUSED, answer.reason


def expected(name: str) -> str:
    return UNBUILT if name in NOT_BUILT else NOT_BATCH.get(name, BATCH)


def test_every_architecture_of_the_installed_mlx_lm_has_its_config() -> None:
    spec = importlib.util.find_spec("mlx_lm")
    assert spec is not None and spec.origin is not None
    sources = (Path(spec.origin).parent / "models").glob("*.py")
    with_model = {path.stem for path in sources if re.search(r"^class Model\b", path.read_text(), re.MULTILINE)}
    assert with_model == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS if os.environ.get("PROVE") else SOME)
def test_verdict(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    answer = asyncio.run(ask_the_engine(audit_command(tmp_path), tmp_path))
    found[name], splits = verdict(answer), answer.splits or Splits()
    with capsys.disabled():
        words = ", ".join(filter(None, found[name]))
        print(f"\n{len(found):3} {name}: {words}; {told(splits)}", end="", flush=True)
    if name in NOT_BUILT and sys.platform != "linux":
        return
    assert found[name][0] == expected(name), found[name][1]
    if expected(name) in (UNBUILT, REFUSED):
        return
    found_splits[name] = splits
    assert splits.was_tried, splits.tensor_reason
    assert splits.pipeline is (name not in NO_PIPELINE), splits.pipeline_reason
    assert splits.tensor is (name in TENSOR), splits.tensor_reason
    assert bool(splits.pipeline_reason) is not splits.pipeline
    assert bool(splits.tensor_reason) is not splits.tensor


def told(splits: Splits) -> str:
    pipeline, tensor = splits.pipeline_reason or "pipeline", splits.tensor_reason or "tensor"
    return f"{pipeline}; {tensor}"


def test_most_may_be_batched_and_those_that_are_known_not_to_may_not(evidence: dict[str, Any]) -> None:
    assert found, "runs after the verdicts"
    counts = Counter(one for one, _ in found.values())
    evidence["architectures"] = len(found)
    for one in (BATCH, "one_prompt_at_a_time", "one_sequence_at_a_time", REFUSED, UNBUILT):
        evidence[one.replace(" ", "_")] = counts[one]
    evidence["verdicts"] = {name: one for name, (one, _) in sorted(found.items())}
    # A folder of pytest's is nobody's business.
    evidence["reasons"] = {
        name: re.sub(r"/\S*/(test_verdict)\S*", "FOLDER", why) for name, (_, why) in sorted(found.items()) if why
    }
    assert not [name for name in KNOWN & found.keys() if found[name][0] == BATCH]
    if os.environ.get("PROVE"):
        assert counts[BATCH] >= BATCH_COUNT_MIN


def test_most_can_be_in_a_pipeline(evidence: dict[str, Any]) -> None:
    assert found_splits, "runs after the verdicts"
    in_parts = sorted(name for name, splits in found_splits.items() if splits.pipeline)
    evidence["pipeline"] = len(in_parts)
    evidence["no_pipeline"] = {
        name: splits.pipeline_reason for name, splits in sorted(found_splits.items()) if not splits.pipeline
    }
    evidence["tensor"] = sorted(name for name, splits in found_splits.items() if splits.tensor)
    if os.environ.get("PROVE"):
        assert len(in_parts) >= PIPELINE_COUNT_MIN


def test_no_architectures_name_stands_in_the_code_that_decides() -> None:
    services = Path(__file__).parents[2] / "services/thunderline"
    decides = {
        "rank": "engine generator rows prefill architecture tiny audit kept pipeline splits tensor_split".split(),
        "runner": "answers loaded_weights model_facts model_files models".split(),
    }
    files = [services / folder / f"{name}.py" for folder, names in decides.items() for name in names]
    code = "\n".join(file.read_text() for file in files)
    # In comments and docstrings an example may be named; nothing is compared with a name.
    strings = set(re.findall(r"""["']([\w.-]+)["']""", code))
    assert not strings & CONFIGS.keys()
