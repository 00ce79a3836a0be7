"""How a role learns that it should stop: SIGTERM, SIGINT, or its supervisor's pipe closing."""

import asyncio
import os
import signal
from collections.abc import Mapping

LIFELINE = "THUNDERLINE_LIFELINE_FD"


async def stop_asked(environ: Mapping[str, str] | None = None) -> signal.Signals:
    """Returns when this process should stop: SIGINT (end everything that is mine) or SIGTERM (a closed pipe too).

    A second signal of the same kind changes nothing.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(reason: signal.Signals) -> None:
        if not asked.done():
            asked.set_result(reason)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    lifeline = (os.environ if environ is None else environ).get(LIFELINE)
    if lifeline is None:
        return await asked
    descriptor = int(lifeline)
    # The supervisor holds the other end and writes nothing: readable means closed.
    loop.add_reader(descriptor, stop, signal.SIGTERM)
    try:
        return await asked
    finally:
        loop.remove_reader(descriptor)
