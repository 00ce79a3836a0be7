"""How every role starts: settings, logs, one event loop; and how a refusal to start looks: one line, non-zero."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from thunderline.process import logs, watchdog
from thunderline.process.settings import Settings, SettingsError, parse_role

DONE, FAILED, USAGE = 0, 1, 2
# sysexits.h EX_SOFTWARE: a bug ended the role, so it is worth starting again.
BUG = 70

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """Something outside keeps the process from starting (a taken port, a locked store); one line for the operator."""


def run_role(
    role: str, description: str, argv: Sequence[str], serve: Callable[[Settings], Coroutine[Any, Any, None]]
) -> int:
    """Runs `serve` until it returns. The exit code: 0 as asked, 1 cannot start, 2 bad settings, 70 a bug."""
    try:
        settings = parse_role(role, description, argv)
    except SettingsError as error:
        return refuse(role, str(error), USAGE)
    logs.configure(role, settings.node.log_level)
    # What was imported stays: the collector need not look at it again and again.
    gc.freeze()
    try:
        asyncio.run(_watched(serve(settings)))
    except* CannotStart as group:
        reason, code = str(first(group)), FAILED
    except* Exception as group:
        log.critical("the role ended by a bug", exc_info=group)
        bug = first(group)
        reason, code = f"{type(bug).__name__}: {bug}", BUG
    else:
        return DONE
    return refuse(role, reason, code)


async def _watched(work: Coroutine[Any, Any, None]) -> None:
    async with watchdog.watched():
        await work


def first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first single exception of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def refuse(role: str, reason: str, code: int) -> int:
    print(f"thunderline {role}: {' '.join(reason.split())}", file=sys.stderr)
    return code
