"""How the command line speaks: results on stdout, progress and errors on stderr."""

import sys
from collections.abc import Sequence

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

# In a pipe nothing is wrapped: programs and grep read it.
PIPE_WIDTH = 2000

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def error(text: str) -> None:
    """One line that says what to do next."""
    err.print(f"thunderline: {text}", markup=False)


def as_json(message: Message) -> None:
    """The proto's JSON, with every field: programs read it."""
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    print(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Whole on a terminal, unwrapped in a pipe; `empty` says what to do when there is no row."""
    if not rows:
        out.print(empty, markup=False)
        return
    found = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # The first names the row: it is copied and searched for.
        found.add_column(column, overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        # Text, not markup: a reason may hold [brackets].
        found.add_row(*(Text(cell) for cell in row))
    if out.is_terminal:
        out.print(found)
    else:
        Console(width=PIPE_WIDTH, highlight=False).print(found)


class Progress:
    """One line that changes on a terminal; in a pipe a line at every change of its words."""

    def __init__(self, console: Console = err) -> None:
        self._status = console.status("") if console.is_terminal else None
        self._last = ""

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        if self._status is not None:
            # Text, not markup: a folder may be called [so].
            self._status.update(Text(text))
        else:
            print(text, file=sys.stderr, flush=True)
