"""Members on disk, until they leave: after a restart a node looks for those whom it knew. Blocking."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import json_format

from thunderline.cluster.errors import InvalidRequest
from thunderline.discovery.membership import MEMBER_COUNT_MAX
from thunderline.discovery.values import Card
from thunderline.discovery.wire import checked_card, whole
from thunderline.process.home import write_atomically
from thunderline.v1 import cluster_pb2

FILE = "members.json"

log = logging.getLogger(__name__)


def remembered(home: Path) -> tuple[Card, ...]:
    """None of a file that is broken: that costs the memory, and seeds or multicast find them again."""
    path = home / FILE
    try:
        members = json.loads(path.read_text())["members"][:MEMBER_COUNT_MAX]
        return tuple(checked_card(json_format.ParseDict(one, cluster_pb2.NodeCard(), True)) for one in members)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, json_format.ParseError, InvalidRequest) as error:
        log.warning("the members that were known cannot be read", extra={"file": str(path), "why": str(error)})
        return ()


def remember(home: Path, cards: Iterable[Card]) -> None:
    """Raises OSError."""
    members = [json_format.MessageToDict(whole(card), preserving_proto_field_name=True) for card in cards]
    write_atomically(home / FILE, (json.dumps({"members": members}, indent=1) + "\n").encode())
