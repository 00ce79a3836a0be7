"""The fence on disk: runner.json, replaced atomically before a rank is started."""

import base64
import binascii
import json
import logging
from pathlib import Path

from thunderline.cluster import InstanceId, StoreId
from thunderline.process.entry import CannotStart
from thunderline.process.home import forget_left_store, left_store, write_atomically
from thunderline.runner.fence import Fence, Started, leave

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
        return Fence(StoreId(tree["store_id"]), started, int(tree.get("forgotten", 0)))
    except FileNotFoundError:
        return Fence()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise CannotStart(f"{path} cannot be read ({error}); move it away to obey the next scheduler") from None


def read_left(path: Path, home: Path) -> Fence:
    """Without the store that this node has left, if it has. Raises CannotStart."""
    kept = read(path)
    if not (left := left_store(home)):
        return kept
    found = leave(kept, StoreId(left))
    try:
        write(path, found)
        forget_left_store(home)
    except OSError as error:
        # The next start tries again.
        log.warning("a store that was left cannot be forgotten", extra={"store": left, "why": str(error)})
    if found != kept:
        log.warning("this node has left a store: what was started there ends", extra={"store": left})
    return found


def write(path: Path, fence: Fence) -> None:
    """Raises OSError."""
    tree = {
        "store_id": fence.store,
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
