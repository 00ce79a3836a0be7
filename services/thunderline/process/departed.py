"""Who was taken out of the cluster, on its scheduler node alone: cluster/left.json, a list of node ids.

A certificate counts until it ends, but who is in here gets no other one, unless a join token lets it in again.
"""

import json
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.process.authority import changing
from thunderline.process.entry import CannotStart
from thunderline.process.home import write_atomically
from thunderline.process.trust import FOLDER, folder

LEFT = "left.json"


def departed(home: Path) -> frozenset[NodeId]:
    """Raises CannotStart for a broken file: nobody may come back by breaking it."""
    path = home / FOLDER / LEFT
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} cannot be read: {error}; write the ids of who left there, or []") from None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise CannotStart(f"{path} is no list of node ids: write the ids of who left there, or []")
    return frozenset(NodeId(one) for one in found)


def depart(home: Path, node: NodeId) -> None:
    """Blocking. Raises OSError, CannotStart."""
    with changing(home):
        _keep(home, departed(home) | {node})


def readmit(home: Path, node: NodeId) -> None:
    """Blocking. Raises OSError, CannotStart."""
    with changing(home):
        before = departed(home)
        if node in before:
            _keep(home, before - {node})


def _keep(home: Path, nodes: frozenset[NodeId]) -> None:
    write_atomically(folder(home) / LEFT, json.dumps(sorted(nodes)).encode())
