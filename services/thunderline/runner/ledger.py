"""The fence on disk: runner.json, replaced atomically before a rank is started."""

import base64
import binascii
import json
import logging
from pathlib import Path

from thunderline.cluster import InstanceId, NodeId, StoreId
from thunderline.process.entry import CannotStart
from thunderline.process.home import write_atomically
from thunderline.runner.fence import Fence, Started, under

log = logging.getLogger(__name__)


def read(path: Path) -> Fence:
    """The fence; an empty one when there is none. Raises CannotStart for a file that is not ours."""
    try:
        tree = json.loads(path.read_text())
        started = {
            InstanceId(name): Started(
                int(entry["epoch"]),
                base64.b64decode(entry["placement"], validate=True),
                stopped=bool(entry.get("stopped")),
            )
            for name, entry in tree["instances"].items()
        }
        scheduler = NodeId(str(tree.get("scheduler", "")))
        return Fence(StoreId(tree["store_id"]), started, int(tree.get("forgotten", 0)), scheduler)
    except FileNotFoundError:
        return Fence()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise CannotStart(f"{path} cannot be read ({error}); move it away to obey the next scheduler") from None


def read_under(path: Path, scheduler: NodeId) -> Fence:
    """Of a node that this scheduler node commands now. Raises CannotStart."""
    kept = read(path)
    found = under(kept, scheduler)
    if found.store != kept.store:
        log.warning("another scheduler node commands: what the former one started ends", extra={"former": kept.store})
    return found


def write(path: Path, fence: Fence) -> None:
    """Raises OSError."""
    tree = {
        "store_id": fence.store,
        "scheduler": fence.scheduler,
        "forgotten": fence.forgotten,
        "instances": {
            name: {
                "epoch": started.epoch,
                "placement": base64.b64encode(started.placement).decode(),
                "stopped": started.stopped,
            }
            for name, started in fence.started.items()
        },
    }
    write_atomically(path, json.dumps(tree, indent=1).encode())
