"""Who was taken out, on disk: kept until a token lets it in again, and bounded."""

import json
import uuid
from pathlib import Path

import pytest

from thunderline.cluster import NodeId
from thunderline.process.departed import DEPARTED_COUNT_MAX, LEFT, depart, departed, readmit
from thunderline.process.entry import CannotStart
from thunderline.process.trust import FOLDER


def new_id() -> NodeId:
    return NodeId(str(uuid.uuid4()))


def test_who_was_taken_out_stays_so_until_it_is_let_in_again(tmp_path: Path) -> None:
    one, other = new_id(), new_id()
    assert departed(tmp_path) == frozenset()
    for node in (one, other, one):
        depart(tmp_path, node)
    assert departed(tmp_path) == {one, other}
    readmit(tmp_path, one)
    readmit(tmp_path, one)
    assert departed(tmp_path) == {other}


BROKEN = {
    "no JSON": "[",
    "no list": "{}",
    "numbers": "[1]",
    "what is no id": '["ada"]',
    "an id in capitals": json.dumps([new_id().upper()]),
    "more than a card holds": json.dumps([new_id() for _ in range(DEPARTED_COUNT_MAX + 1)]),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_list_is_named_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    path = tmp_path / FOLDER / LEFT
    path.write_text(text)
    for change in (depart, readmit):
        with pytest.raises(CannotStart, match=r"left\.json"):
            change(tmp_path, new_id())
    assert path.read_text() == text


def test_when_it_is_full_the_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    nodes = [new_id() for _ in range(DEPARTED_COUNT_MAX)]
    (tmp_path / FOLDER / LEFT).write_text(json.dumps(nodes))
    depart(tmp_path, nodes[0])
    with pytest.raises(CannotStart, match="rotate --now"):
        depart(tmp_path, new_id())
    assert departed(tmp_path) == set(nodes)
