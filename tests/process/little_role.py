"""A role as small as one can be, for tests: `python little_role.py BEHAVIOUR [flags]`. Its name is topology."""

import asyncio
import sys

from thunderline.process import stopping
from thunderline.process.entry import CannotStart, run_role
from thunderline.process.settings import Settings

BEHAVIOUR = sys.argv[1]


async def serve(settings: Settings) -> None:
    match BEHAVIOUR:
        case "ends":
            return
        case "refuses":
            raise CannotStart("the store is\nlocked by pid 17")
        case "refuses in a task":
            async with asyncio.TaskGroup() as group:
                group.create_task(refusing())
        case "breaks in a task":
            async with asyncio.TaskGroup() as group:
                group.create_task(breaking())
        case _:
            waiting = asyncio.create_task(stopping.stop_asked())
            # It has its handlers from its first step on.
            await asyncio.sleep(0)
            print("running", flush=True)
            print((await waiting).name, flush=True)


async def refusing() -> None:
    raise CannotStart("port 7402 is taken")


async def breaking() -> None:
    raise ZeroDivisionError("division by zero")


if __name__ == "__main__":
    sys.exit(run_role("topology", "A little role.", sys.argv[2:], serve))
