"""Members on disk."""

import json
import logging
from pathlib import Path

import pytest

from discovery.little_discovery import little_card
from thunderline.discovery import wire
from thunderline.discovery.memory import FILE, remember, remembered


def test_who_was_written_down_is_remembered_with_the_whole_card(tmp_path: Path) -> None:
    cards = tuple(wire.to_card(little_card(7401, hostname=name, versions={"mlx": "1"})) for name in ("ada", "bob"))
    assert remembered(tmp_path) == ()
    remember(tmp_path, cards)
    assert remembered(tmp_path) == cards
    remember(tmp_path, ())
    assert remembered(tmp_path) == ()


def good(folder: Path) -> str:
    remember(folder, [wire.to_card(little_card(7401))])
    return (folder / FILE).read_text()


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="half"),
        pytest.param("[]", id="a list"),
        pytest.param('{"members": 3}', id="a number"),
        pytest.param('{"members": [{"node_id": 3}]}', id="a card of another form"),
        pytest.param('{"members": [{"node_id": "ada"}]}', id="a card that breaks a bound"),
        pytest.param("\udcff", id="no text"),
    ],
)
def test_a_broken_file_costs_the_memory_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    (tmp_path / FILE).write_bytes(spoilt.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert remembered(tmp_path) == ()
    assert "cannot be read" in caplog.text


def test_a_field_of_a_newer_thunderline_is_passed_over(tmp_path: Path) -> None:
    tree = json.loads(good(tmp_path))
    tree["members"][0]["later"] = 1
    (tmp_path / FILE).write_text(json.dumps(tree))
    assert len(remembered(tmp_path)) == 1
