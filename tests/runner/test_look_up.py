"""Facts of a model that only the hub has: the same as of its folder, for the heads of its files alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.little_hub import MODEL, hub
from runner.little_model import make
from runner.test_models import YES
from thunderline.cluster.errors import HubUnreachable, NotFound
from thunderline.process import settings
from thunderline.process.settings import Settings
from thunderline.runner import look_up
from thunderline.runner.models import Models, Verdict, audit_folder


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "home" / "models").mkdir(parents=True)
    return settings.read({}, home=tmp_path / "home")


def models(home: Settings, address: str) -> Models:
    def command(model: str, folder: Path) -> list[str]:
        return ["env", f"HF_ENDPOINT={address}", "HF_HUB_OFFLINE=0", *look_up.command(model, folder)]

    return Models(home, YES, command)


async def test_the_facts_are_those_of_the_folder(home: Settings, tmp_path: Path) -> None:
    origin = make(tmp_path / "origin")
    with hub(origin) as address:
        found = await models(home, address).audit(MODEL, may_look_up=True)
    assert (found.verdict, found.problems, found.folder) == (Verdict.FETCHABLE, (), None)
    local = audit_folder(origin)
    assert found.facts is not None and local.facts is not None
    assert found.facts.digest == local.facts.digest
    assert found.facts.layers == local.facts.layers
    assert found.facts.weight_bytes == local.facts.weight_bytes
    assert found.batching == "one_sequence_at_a_time", "the engine was asked too"
    assert list((home.home / "models").iterdir()) == [], "nothing is fetched"


async def test_only_heads_are_read(home: Settings, tmp_path: Path) -> None:
    origin = make(tmp_path / "origin")
    weights = origin / "model.safetensors"
    # Behind the header, and longer than what is asked for at first.
    weights.write_bytes(weights.read_bytes() + bytes(10**6))
    asked: list[str] = []
    with hub(origin, asked) as address:
        found = await models(home, address).audit(MODEL, may_look_up=True)
    assert found.verdict is Verdict.UNUSABLE and "instead of" in found.problems[0]
    assert [one for one in asked if one.startswith("model.safetensors ")] == ["model.safetensors bytes=0-99999"]


async def test_a_long_header_is_read_to_its_end(home: Settings, tmp_path: Path) -> None:
    origin = make(tmp_path / "origin")
    weights = (origin / "model.safetensors").read_bytes()
    length = int.from_bytes(weights[:8], "little")
    padded = weights[8 : 8 + length] + b" " * 200_000
    (origin / "model.safetensors").write_bytes(len(padded).to_bytes(8, "little") + padded + weights[8 + length :])
    with hub(origin) as address:
        found = await models(home, address).audit(MODEL, may_look_up=True)
    assert found.problems == ()
    local = audit_folder(origin).facts
    assert found.facts is not None and local is not None
    assert found.facts.digest == local.digest


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").unlink()


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tokenizer": (_without("tokenizer.json"), f"{MODEL} has no tokenizer.json"),
    "no config": (_without("config.json"), f"{MODEL} has no config.json"),
    "weights in another format": (_as_pickle, "safetensors"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_would_be_wrong_with_it_is_said_before_it_is_fetched(
    home: Settings, tmp_path: Path, case: str
) -> None:
    change, words = WRONG[case]
    change(make(tmp_path / "origin"))
    with hub(tmp_path / "origin") as address:
        found = await models(home, address).audit(MODEL, may_look_up=True)
    assert found.verdict is Verdict.UNUSABLE
    assert words in found.problems[0]


async def test_a_model_that_is_nowhere(home: Settings, tmp_path: Path) -> None:
    with hub(make(tmp_path / "origin")) as address, pytest.raises(NotFound, match="org/other"):
        await models(home, address).audit("org/other", may_look_up=True)


async def test_a_hub_that_does_not_answer(home: Settings) -> None:
    with pytest.raises(HubUnreachable):
        await models(home, "http://127.0.0.1:9").audit(MODEL, may_look_up=True)


async def test_nobody_is_asked_unless_it_is_wished(home: Settings, tmp_path: Path) -> None:
    asked: list[str] = []
    with hub(make(tmp_path / "origin"), asked) as address:
        found = await models(home, address).audit(MODEL)
    assert (found.verdict, found.facts, asked) == (Verdict.FETCHABLE, None, [])


async def test_a_model_that_is_here_is_not_looked_up(home: Settings, tmp_path: Path) -> None:
    make(home.models / MODEL.replace("/", "--"))
    found = await models(home, "http://127.0.0.1:9").audit(MODEL, may_look_up=True)
    assert found.verdict is Verdict.USABLE
