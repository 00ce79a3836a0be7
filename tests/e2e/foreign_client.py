"""A gRPC client made from protos/ alone, as somebody else would write it: `python foreign_client.py STUBS BASE MODEL`.

Prints one JSON object. Imports nothing of thunderline but the stubs in the folder STUBS.
"""

import json
import sys
import threading
import time
from typing import Any

stubs, base, model = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, stubs)

import grpc  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase  # noqa: E402

from thunderline.v1 import cluster_pb2, scheduler_pb2, scheduler_pb2_grpc  # noqa: E402

NAME = "foreign"


def health_and_reflection(found: dict[str, Any]) -> None:
    for offset, service in enumerate(("Discovery", "Topology", "Scheduler", "Runner"), start=1):
        full = f"thunderline.v1.{service}Service"
        with grpc.insecure_channel(f"127.0.0.1:{base + offset}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(service=full), timeout=10)
            database = ProtoReflectionDescriptorDatabase(channel)
            methods = DescriptorPool(database).FindServiceByName(full).methods_by_name
            found[service] = {
                "serving": answer.status == health_pb2.HealthCheckResponse.SERVING,
                "listed": full in database.get_services(),
                "methods": sorted(methods),
            }


def generation(max_tokens: int) -> Any:
    chat = cluster_pb2.Chat(messages=[cluster_pb2.ChatMessage(role="user", content="Tell me a long story.")])
    sampling = cluster_pb2.Sampling(seed=1)
    wish = cluster_pb2.Generation(
        request_id=f"5b5c3d8e-0000-4000-8000-{time.monotonic_ns() % 10**12:012d}",
        model=NAME,
        chat=chat,
        sampling=sampling,
        max_tokens=max_tokens,
    )
    return scheduler_pb2.SchedulerServiceGenerateRequest(generation=wish)


def deployment(stub: Any) -> Any:
    listed = stub.ListDeployments(scheduler_pb2.ListDeploymentsRequest(), timeout=10).deployments
    return next((one for one in listed if one.spec.name == NAME), None)


def main() -> None:
    found: dict[str, Any] = {"modules": []}
    health_and_reflection(found)
    with grpc.insecure_channel(f"127.0.0.1:{base + 3}") as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        spec = cluster_pb2.DeploymentSpec(name=NAME, model=model, kv_budget_tokens=8192)
        stub.Deploy(scheduler_pb2.DeployRequest(spec=spec), timeout=10)
        end = time.monotonic() + 90
        while deployment(stub).state != cluster_pb2.DEPLOYMENT_STATE_READY and time.monotonic() < end:
            threading.Event().wait(0.2)
        deltas = [message.delta for message in stub.Generate(generation(12), timeout=60)]
        found["messages"] = len(deltas)
        found["tokens"] = sum(len(delta.token_ids) for delta in deltas)
        found["text"] = "".join(delta.text for delta in deltas)
        found["finish"] = cluster_pb2.FinishReason.Name(deltas[-1].finish_reason)
        call = stub.Generate(generation(0), timeout=120)
        for seen, _ in enumerate(call):
            if seen == 3:
                call.cancel()
                break
        found["cancelled"] = call.code() is grpc.StatusCode.CANCELLED
        try:
            list(stub.Generate(scheduler_pb2.SchedulerServiceGenerateRequest(), timeout=10))
        except grpc.RpcError as error:
            found["bad"] = error.code().name
        stub.Undeploy(scheduler_pb2.UndeployRequest(name=NAME), timeout=10)
        end = time.monotonic() + 30
        while deployment(stub) is not None and time.monotonic() < end:
            threading.Event().wait(0.2)
        found["undeployed"] = deployment(stub) is None
    files = {name: getattr(module, "__file__", None) or stubs for name, module in sys.modules.items()}
    ours = (name for name in files if name.startswith("thunderline."))
    found["modules"] = sorted(name for name in ours if not files[name].startswith(stubs))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
