"""What topology keeps on disk: how often it was started, and the cables that were seen here."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.cluster.graph import START_MAX, Cable, CableEnd, cable
from thunderline.process.entry import CannotStart
from thunderline.process.home import write_atomically

STARTS, CABLES = "topology.json", "cables.json"

log = logging.getLogger(__name__)


def next_start(home: Path) -> int:
    """Counts this start. Raises CannotStart when the count cannot be kept: others would not believe our reports.

    The first is the time, in seconds since 1970: whoever has lost its count gives no number a second time.
    """
    path = home / STARTS
    start = _last_start(path) + 1 or int(time.time())
    try:
        keep_start(home, start)
    except OSError as error:
        raise CannotStart(f"{path} cannot be written: {error}") from None
    return start


def _last_start(path: Path) -> int:
    """-1 where none is kept that can be used."""
    try:
        start = int(json.loads(path.read_text())["start"])
        if not 0 <= start < START_MAX:
            raise ValueError(f"{start} is not between 0 and {START_MAX}")
        return start
    except FileNotFoundError:
        return -1
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        log.warning("the count of starts cannot be read, and goes on from the time", extra={"why": str(error)})
        return -1


def keep_start(home: Path, count: int) -> None:
    """Raises OSError."""
    write_atomically(home / STARTS, (json.dumps({"start": count}) + "\n").encode())


def kept_cables(home: Path) -> dict[Cable, float]:
    """When each was last seen, of the wall clock. A file that cannot be read is none."""
    path = home / CABLES
    try:
        rows = json.loads(path.read_text())["cables"]
        return {cable(_end(row["one"]), _end(row["other"])): float(row["seen_s"]) for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the remembered cables cannot be read, and are learnt again", extra={"why": str(error)})
        return {}


def keep_cables(home: Path, cables: Mapping[Cable, float]) -> None:
    """Blocking. Raises OSError."""
    rows = [
        {"one": _fields(one.one), "other": _fields(one.other), "seen_s": seen_s}
        for one, seen_s in sorted(cables.items())
    ]
    write_atomically(home / CABLES, (json.dumps({"cables": rows}, indent=1) + "\n").encode())


def _fields(end: CableEnd) -> dict[str, str]:
    return {"node": end.node, "interface": end.interface, "port_uuid": end.port_uuid, "receptacle": end.receptacle}


def _end(row: Mapping[str, str]) -> CableEnd:
    texts = [str(row[name]) for name in ("interface", "port_uuid", "receptacle")]
    return CableEnd(NodeId(str(row["node"])), *texts)
