"""An HTTP body as a JSON object, within a limit."""

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from thunderline.cluster.errors import InvalidRequest

# What is read and thrown away of a body that is too large, so that its sender gets to see the answer.
DISCARD_FACTOR = 8


class BodyTooLarge(Exception):
    """The message has both figures."""


async def json_object(request: Request, bytes_max: int, deadline_s: float) -> dict[str, Any]:
    """Raises BodyTooLarge, InvalidRequest."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= bytes_max:
                    chunks.append(chunk)
                elif size > bytes_max * DISCARD_FACTOR:
                    break
    except TimeoutError:
        raise InvalidRequest(f"the body did not come within {deadline_s:.0f} s") from None
    if size > bytes_max:
        raise BodyTooLarge(f"the body has more than {bytes_max} bytes")
    try:
        body = json.loads(b"".join(chunks).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
