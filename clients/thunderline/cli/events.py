"""`events`: what happened, as a table, as lines that go on, or as JSON for programs."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime, tzinfo

from google.protobuf import json_format

from thunderline.cli import saying
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import Draining, Unreachable
from thunderline.v1 import scheduler_pb2

LOOK_AGAIN_S = 0.5
# The longest kind: columns of lines that come one by one cannot be measured.
KIND_WIDTH = 21

Show = Callable[[scheduler_pb2.Event], None]


async def kept(scheduler: SchedulerClient, count: int, subject: str | None) -> list[scheduler_pb2.Event]:
    """The newest of those that are kept, oldest first; of one subject when it is given. Raises ClusterError."""
    found: deque[scheduler_pb2.Event] = deque(maxlen=count)
    async for event in scheduler.watch_events(kept_only=True):
        if _is_about(event, subject):
            found.append(event)
    return list(found)


async def follow(
    scheduler: SchedulerClient, count: int, subject: str | None, show: Show, say: Callable[[str], None]
) -> None:
    """Shows the newest that are kept, then each as it happens, also over restarts of the scheduler.

    Until cancelled. Raises ClusterError when the scheduler is not there at the beginning.
    """
    last = 0
    newest: deque[scheduler_pb2.Event] = deque(maxlen=count)
    async for event in scheduler.watch_events(kept_only=True):
        last = event.number
        if _is_about(event, subject):
            newest.append(event)
    for event in newest:
        show(event)
    is_lost = False
    while True:
        try:
            async for event in scheduler.watch_events(after=last):
                last, is_lost = event.number, False
                if _is_about(event, subject):
                    show(event)
        except (Unreachable, Draining):
            if not is_lost:
                say("the scheduler is not there; waiting for it")
            is_lost = True
        await asyncio.sleep(LOOK_AGAIN_S)


def _is_about(event: scheduler_pb2.Event, subject: str | None) -> bool:
    return subject is None or event.subject == subject


def table(events: list[scheduler_pb2.Event], now: datetime, subject: str | None) -> None:
    columns = ("time", "kind", "subject", "what happened", "requests", "what was done")
    empty = f"nothing is known of {subject}; `thunderline deployments` lists what there is" if subject else ""
    saying.table("events", columns, [row(event, now) for event in events], empty or "nothing has happened yet")


def row(event: scheduler_pb2.Event, now: datetime) -> tuple[str, ...]:
    count = str(event.request_count) if event.request_count else ""
    return (local_time(event, now), event.kind, event.subject, event.text, count, event.done)


def line(event: scheduler_pb2.Event, now: datetime) -> str:
    """For a terminal that is watched: two spaces between what a table would put into columns."""
    count = f"{event.request_count} request{'s' if event.request_count != 1 else ''}" if event.request_count else ""
    head = f"{local_time(event, now)} {event.kind:<{KIND_WIDTH}} {event.subject}"
    return "  ".join(part for part in (head, event.text, count, event.done) if part)


def local_time(event: scheduler_pb2.Event, now: datetime) -> str:
    """The time of day where the reader is; with the day when it was another one. `now` has a time zone."""
    zone: tzinfo | None = now.tzinfo
    then = event.time.ToDatetime(tzinfo=zone)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def json_line(event: scheduler_pb2.Event) -> str:
    """The proto's JSON on one line, with every field."""
    return json_format.MessageToJson(
        event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )


def put(text: str) -> None:
    """One whole line at once: a program may read them as they come."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def hush() -> None:
    """Nobody reads stdout any more: what is still buffered goes nowhere, without a word at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
