"""One request, from whoever holds the client: request id and seed are made here, once.

This is where a broken stream will be resumed: whoever holds the client holds the request. For now it ends with the
error that broke it.
"""

import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc

from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, scheduler_pb2

SEEDS = 2**63
GENERATE_DEADLINE_S = 600.0


def completed(wish: cluster_pb2.Generation) -> cluster_pb2.Generation:
    """A copy with a request id, and with a seed where none was given."""
    whole = cluster_pb2.Generation()
    whole.CopyFrom(wish)
    whole.request_id = wish.request_id or str(uuid.uuid4())
    if not wish.sampling.HasField("seed"):
        whole.sampling.seed = random.randrange(SEEDS)
    return whole


async def generate(
    stub: Any, wish: cluster_pb2.Generation, deadline_s: float
) -> AsyncIterator[cluster_pb2.GenerationDelta]:
    """What became known since the message before; the last has the finish. Leaving early cancels the request.

    Raises ClusterError.
    """
    request = scheduler_pb2.SchedulerServiceGenerateRequest(generation=completed(wish))
    call = stub.Generate(request, timeout=deadline_s)
    try:
        async for message in call:
            yield message.delta
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None
    finally:
        call.cancel()
