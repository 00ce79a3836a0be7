"""Models on disk: where a name leads, what the files say, what the engine's child says."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.little_model import HEADS, HIDDEN, KV_HEADS, LAYERS, VOCABULARY_SIZE, make
from thunderline.cluster.errors import InvalidRequest
from thunderline.process import settings
from thunderline.process.settings import Settings
from thunderline.runner.answers import REMEMBERED_COUNT_MAX, Answer, newest
from thunderline.runner.models import Models, Verdict


def says(answer: object) -> Callable[[Path], list[str]]:
    """A child that prints its answer after other lines, as imports do."""
    return lambda folder: [sys.executable, "-c", f"print('noise'); print({json.dumps(answer)!r})"]


YES = says({"supported": True, "batching": "one_sequence_at_a_time", "batching_reason": "it differs"})


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "home" / "models").mkdir(parents=True)
    return settings.read({"THUNDERLINE_RUNNER_MODEL_ROOTS": str(tmp_path / "root")}, home=tmp_path / "home")


def models(home: Settings, command: Callable[[Path], list[str]] = YES) -> Models:
    return Models(home, command)


async def test_a_good_folder_is_usable_with_its_figures(home: Settings) -> None:
    folder = make(home.models / "little")
    audit = await models(home).audit("little")
    assert audit.verdict is Verdict.USABLE
    assert audit.folder == folder
    assert audit.facts is not None
    assert audit.facts.architecture == "llama"
    assert audit.facts.layer_count == LAYERS
    assert audit.facts.vocabulary_size == VOCABULARY_SIZE
    assert audit.facts.kv_bytes_per_token == 2 * LAYERS * KV_HEADS * (HIDDEN // HEADS) * 4
    head = struct.unpack("<Q", (folder / "model.safetensors").read_bytes()[:8])[0]
    assert audit.facts.weight_bytes == (folder / "model.safetensors").stat().st_size - 8 - head
    assert len(audit.facts.digest) == 64
    assert (audit.batching, audit.batching_reason) == ("one_sequence_at_a_time", "it differs")


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _rewrite(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def _index(folder: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/nowhere/model.safetensors")


# What is done to a good folder -> parts of the problems.
BROKEN: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "without_config": (lambda folder: (folder / "config.json").unlink(), ("config.json",)),
    "a_config_that_is_no_json": (_rewrite("config.json", "{"), ("config.json",)),
    "a_config_that_is_no_object": (_rewrite("config.json", "[]"), ("config.json",)),
    "a_config_nested_without_end": (_rewrite("config.json", "[" * 100_000), ("config.json",)),
    "truncated_weights_with_both_sizes": (_truncate, ("model.safetensors has", "instead of")),
    "weights_that_are_no_safetensors": (_rewrite("model.safetensors", "not weights at all"), ("model.safetensors",)),
    "empty_weights": (_rewrite("model.safetensors", ""), ("model.safetensors",)),
    "weights_that_lead_nowhere": (_dangling, ("model.safetensors",)),
    "no_weights": (lambda folder: (folder / "model.safetensors").unlink(), ("*.safetensors",)),
    "a_missing_shard": (_index, ("model-00001-of-00002.safetensors is missing",)),
    "without_tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ("tokenizer.json",)),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_folder_is_unusable_and_says_why(home: Settings, case: str) -> None:
    change, parts = BROKEN[case]
    change(make(home.models / "little"))
    audit = await models(home).audit("little")
    assert audit.verdict is Verdict.UNUSABLE
    problems = "; ".join(audit.problems)
    assert all(part in problems for part in parts), problems


async def test_where_names_lead(home: Settings, tmp_path: Path) -> None:
    inside, rooted = make(home.models / "little"), make(tmp_path / "root" / "rooted")
    fetched, outside = make(home.models / "org--name"), make(tmp_path / "outside")
    (home.models / "link").symlink_to(outside)
    (home.models / ".org--half.partial").mkdir()
    cases: dict[str, Verdict] = {
        "little": Verdict.USABLE,
        str(inside): Verdict.USABLE,
        str(rooted): Verdict.USABLE,
        "org/name": Verdict.USABLE,
        "org/other": Verdict.FETCHABLE,
        "org/half": Verdict.FETCHABLE,
        "nothing-here": Verdict.UNUSABLE,
        "/nowhere/model": Verdict.UNUSABLE,
        str(outside): Verdict.UNUSABLE,
        "link": Verdict.UNUSABLE,
        "../../outside": Verdict.UNUSABLE,
        ".": Verdict.UNUSABLE,
        ".org--half.partial": Verdict.UNUSABLE,
        str(inside / "config.json"): Verdict.UNUSABLE,
    }
    known = models(home)
    for name, expected in cases.items():
        assert known.locate(name).verdict is expected, name
    assert known.locate("org/name").folder == fetched
    assert "/nowhere/model" in known.locate("/nowhere/model").problems[0]
    assert "model_roots" in known.locate(str(outside)).problems[0]


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 2000, "y" * 300])
def test_an_impossible_name_is_an_invalid_request(home: Settings, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        models(home).locate(name)
    assert caught.value.param == "model"


CHILDREN: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "does_not_know_the_architecture": (says({"supported": False, "reason": "frobnicator is unknown"}), "frobnicator"),
    "prints_nothing": (lambda folder: [sys.executable, "-c", "import sys; sys.exit('boom')"], "boom"),
    "prints_something_else": (says(["supported"]), "failed"),
    "cannot_be_started": (lambda folder: ["/nowhere/python"], "cannot be started"),
}


@pytest.mark.parametrize("case", CHILDREN)
async def test_the_engines_child_decides_about_the_architecture(home: Settings, case: str) -> None:
    command, part = CHILDREN[case]
    make(home.models / "little")
    audit = await models(home, command).audit("little")
    assert audit.verdict is Verdict.UNUSABLE
    assert part in audit.problems[0]
    assert audit.facts is not None


def counting(count: Path) -> Callable[[Path], list[str]]:
    """A child that leaves a letter each time."""
    script = f"open({str(count)!r}, 'a').write('x'); print('{{\"supported\": true}}')"
    return lambda folder: [sys.executable, "-c", script]


async def test_the_child_is_asked_once_per_model_by_the_next_runner_too(home: Settings, tmp_path: Path) -> None:
    make(home.models / "little")
    count = tmp_path / "count"
    for _ in range(2):
        known = models(home, counting(count))
        for _again in range(2):
            assert (await known.audit("little")).verdict is Verdict.USABLE
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace('"engine": "', '"engine": "another'), id="of another engine"),
        pytest.param(lambda text: text[:20], id="cut off"),
        pytest.param(lambda text: text.replace("batching", "unknown"), id="of another version"),
        pytest.param(lambda text: "[]", id="of another kind"),
    ],
)
async def test_an_answer_that_may_not_hold_any_more_is_asked_for_again(
    home: Settings, tmp_path: Path, change: Callable[[str], str]
) -> None:
    make(home.models / "little")
    count = tmp_path / "count"
    await models(home, counting(count)).audit("little")
    kept = home.home / "audits.json"
    kept.write_text(change(kept.read_text()))
    assert (await models(home, counting(count)).audit("little")).verdict is Verdict.USABLE
    assert count.read_text() == "xx"


SPLITS = {"pipeline": True, "pipeline_reason": "", "tensor": False, "tensor_reason": "9 heads", "engine": "mlx-lm 1"}


def splitting(count: Path, was_tried: bool = True) -> Callable[[Path], list[str]]:
    """A child that leaves a letter each time and tries to split when it may: the option comes behind the folder."""
    answer = {"supported": True, "kept": [{"kv_elements_per_token": 64, "window_tokens": 8}] * LAYERS}
    both = {**answer, "splits": {**SPLITS, "was_tried": was_tried}}
    script = f"import sys; open({str(count)!r}, 'a').write('x' if sys.argv[1:] else 'S'); "
    script += f"print({json.dumps(answer)!r} if sys.argv[1:] else {json.dumps(both)!r})"
    return lambda folder: [sys.executable, "-c", script]


async def test_splits_are_tried_when_they_are_asked_for_and_once(home: Settings, tmp_path: Path) -> None:
    make(home.models / "little")
    count = tmp_path / "count"
    for _ in range(2):
        known = models(home, splitting(count))
        plain = await known.audit("little")
        assert (plain.splits is None) is (_ == 0), "what is known is told"
        for _again in range(2):
            split = (await known.audit("little", splits=True)).splits
            assert split is not None
            assert (split.pipeline, split.tensor, split.tensor_reason) == (True, False, "9 heads")
    assert count.read_text() == "xS"


async def test_splits_that_the_machine_did_not_let_be_tried_are_tried_again(home: Settings, tmp_path: Path) -> None:
    make(home.models / "little")
    count = tmp_path / "count"
    known = models(home, splitting(count, was_tried=False))
    for _ in range(2):
        split = (await known.audit("little", splits=True)).splits
        assert split is not None and not split.was_tried
    assert (await known.audit("little")).splits is None
    assert count.read_text() == "SS"


async def test_another_model_of_the_same_config_is_known_already(home: Settings, tmp_path: Path) -> None:
    make(home.models / "little")
    other = make(home.models / "other") / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-4] + b"\0\0\0\0")
    count = tmp_path / "count"
    known = models(home, splitting(count))
    assert await known.audit("little") != await known.audit("other")
    assert count.read_text() == "x"


async def test_the_engines_word_on_what_layers_keep_is_in_the_facts(home: Settings, tmp_path: Path) -> None:
    make(home.models / "little")
    facts = (await models(home, splitting(tmp_path / "count")).audit("little")).facts
    assert facts is not None
    assert {(layer.kv_bytes_per_token, layer.window_tokens) for layer in facts.layers} == {(4 * 64, 8)}
    assert facts.kv_bytes_per_token == LAYERS * 4 * 64
    assert facts.unknowns == ()


def test_only_the_newest_answers_are_remembered() -> None:
    many = {str(number): Answer(True) for number in range(REMEMBERED_COUNT_MAX + 3)}
    assert list(newest(many)) == [str(number) for number in range(3, REMEMBERED_COUNT_MAX + 3)]


def test_hidden_folders_are_not_listed(home: Settings) -> None:
    make(home.models / "little")
    (home.models / ".org--half.partial").mkdir()
    (home.models / "empty").mkdir()
    listed = dict(models(home).listed())
    assert set(listed) == {"little", "empty"}
    assert listed["little"].problems == ()
    assert listed["empty"].problems
