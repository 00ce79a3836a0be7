"""Who was taken out of the cluster, on its scheduler node alone: cluster/left.json, a list of node ids.

A certificate counts until it ends, but who is in here gets no other one, and no member takes its cards, unless a join
token lets it in again.
"""

import json
import uuid
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.process.entry import CannotStart
from thunderline.process.home import write_atomically
from thunderline.process.trust import FOLDER, folder

LEFT = "left.json"
# They stand on the scheduler node's card, which is sent to everybody each second.
DEPARTED_COUNT_MAX = 256


def departed(home: Path) -> frozenset[NodeId]:
    """Raises CannotStart for a broken file: nobody may come back by breaking it."""
    path = home / FOLDER / LEFT
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} cannot be read: {error}; write the ids of who left there, or []") from None
    if not isinstance(found, list) or len(found) > DEPARTED_COUNT_MAX or not all(_is_node_id(one) for one in found):
        rule = f"no list of at most {DEPARTED_COUNT_MAX} node ids"
        raise CannotStart(f"{path} is {rule}: write the ids of who left there, or []")
    return frozenset(NodeId(one) for one in found)


def _is_node_id(found: object) -> bool:
    try:
        return str(uuid.UUID(str(found))) == found
    except ValueError:
        return False


def depart(home: Path, node: NodeId) -> None:
    """Within `changing`. Raises OSError, CannotStart."""
    after = departed(home) | {node}
    if len(after) > DEPARTED_COUNT_MAX:
        remedy = "`thunderline cluster rotate --now`: it shuts all of them out; then write [] there"
        raise CannotStart(f"{home / FOLDER / LEFT} holds {DEPARTED_COUNT_MAX} nodes, the most it may: {remedy}")
    _keep(home, after)


def readmit(home: Path, node: NodeId) -> None:
    """Within `changing`. Raises OSError, CannotStart."""
    before = departed(home)
    if node in before:
        _keep(home, before - {node})


def _keep(home: Path, nodes: frozenset[NodeId]) -> None:
    write_atomically(folder(home) / LEFT, json.dumps(sorted(nodes)).encode())
