"""With keys configured every route of /v1 asks for one: the real gateway, httpx, and the openai client."""

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest

from gateway.test_gateway_process import WAIT_S, free_port
from gateway.test_stories import END, Delta, door
from installation import BIN
from thunderline.client import SchedulerClient
from thunderline.cluster.api_keys import digest, written
from thunderline.cluster.limits import Limits
from thunderline.gateway.app import Gateway
from thunderline.gateway.keys import AsksForKey, Without, without_key
from thunderline.v1 import cluster_pb2

KEY = written(b"k" * 32)
WRONG = written(b"w" * 32)
ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
    ("GET", "/v1/what-is-not-there"),
    ("DELETE", "/v1/models"),
    ("GET", "/v1"),
]


@asynccontextmanager
async def asking(*script: Delta) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        door(*script, api_keys=[digest(written(b"o" * 32)), digest(KEY)]) as one,
        httpx.AsyncClient(base_url=one.url, timeout=WAIT_S) as client,
    ):
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])
async def test_no_route_of_v1_answers_without_a_key(method: str, path: str) -> None:
    async with asking() as client:
        for headers in ({}, {"Authorization": f"Bearer {WRONG}"}, {"Authorization": KEY}, {"api-key": KEY}):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            error = answer.json()["error"]
            assert (error["code"], error["type"], error["param"]) == ("invalid_api_key", "invalid_request_error", None)
            assert KEY not in answer.text and WRONG not in answer.text
        let_in = await client.request(method, path, headers={"Authorization": f"Bearer {KEY}"})
        assert let_in.status_code != 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_health_and_metrics_need_none(path: str) -> None:
    async with asking() as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("path", "is_near", "has_open_metrics", "expected"),
    [
        ("/v1", True, True, Without.NOTHING),
        ("/v1/models", False, True, Without.NOTHING),
        ("/v1x", False, False, Without.ALL),
        ("/healthz", False, False, Without.ALL),
        ("/readyz", True, False, Without.ALL),
        ("/readyz", False, False, Without.BRIEF),
        ("/readyz", False, True, Without.BRIEF),
        ("/metrics", True, False, Without.ALL),
        ("/metrics", False, False, Without.NOTHING),
        ("/metrics", False, True, Without.ALL),
    ],
)
def test_what_is_answered_without_a_key(path: str, is_near: bool, has_open_metrics: bool, expected: Without) -> None:
    assert without_key(path, is_near, has_open_metrics) is expected


class Ready(SchedulerClient):
    """One deployment."""

    def __init__(self) -> None:
        pass

    async def deployments(self) -> list[cluster_pb2.Deployment]:
        spec = cluster_pb2.DeploymentSpec(name="m")
        return [cluster_pb2.Deployment(spec=spec, state=cluster_pb2.DEPLOYMENT_STATE_READY, reason="epoch 1 serves")]


@pytest.mark.parametrize("peer", ["192.0.2.7", "fd00::7", "::ffff:192.0.2.7"])
async def test_from_afar_metrics_ask_for_a_key_and_readyz_says_only_whether_it_is(peer: str) -> None:
    app = AsksForKey(Gateway(Ready(), Limits()).app(), [digest(KEY)])
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        client.headers["Authorization"] = f"Bearer {KEY}"
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/readyz")).json()["deployments"][0]["reason"] == "epoch 1 serves"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_on_loopback_neither_needs_one(peer: str) -> None:
    app = AsksForKey(Gateway(Ready(), Limits()).app(), [digest(KEY)])
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/metrics")).status_code == 200
        assert "deployments" in (await client.get("/readyz")).json()


async def test_a_large_body_without_a_key_is_refused_too() -> None:
    async with asking() as client:
        answer = await client.post("/v1/completions", content=b"x" * 1_000_000)
        assert answer.status_code == 401
        # The connection still takes a good request.
        good = await client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        assert good.status_code == 200


async def test_the_openai_client_is_answered_with_its_key_and_told_without() -> None:
    deltas = (Delta(prompt_token_ids=[1, 2, 3]), Delta(token_ids=[5], text="Hi"), END)
    async with door(*deltas, api_keys=[digest(KEY)]) as one:
        for key in (WRONG, "none"):
            async with openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0) as client:
                with pytest.raises(openai.AuthenticationError) as refused:
                    await client.completions.create(model="m", prompt="a")
                assert refused.value.code == "invalid_api_key"
        async with openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.completions.create(model="m", prompt="a")
            assert answer.choices[0].text == "Hi!"
            assert [model.id async for model in client.models.list()] == ["m"]


async def test_the_log_holds_no_key_and_one_line_for_many_refusals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with asking() as client:
        for _ in range(5):
            await client.get("/v1/models", headers={"Authorization": f"Bearer {WRONG}"})
        await client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    said = [record for record in caplog.records if record.name == "thunderline.gateway.keys"]
    assert len(said) == 1
    assert not [record for record in caplog.records if WRONG in str(vars(record)) or KEY in str(vars(record))]


def test_wider_than_loopback_without_keys_is_refused_with_the_remedy(tmp_path: Path) -> None:
    refused = gateway(tmp_path, "--bind", "0.0.0.0")
    assert refused.returncode == 1
    assert "thunderline cluster key NAME" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def gateway(home: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """One that does not start."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    command = [sys.executable, str(BIN / "thunderline"), "gateway", "--home", str(home), "--port", str(free_port())]
    return subprocess.run([*command, *flags], env=ours, capture_output=True, text=True, timeout=WAIT_S, check=False)


@pytest.mark.parametrize("how", ["flag", "file"])
def test_a_key_that_was_written_where_its_digest_belongs_is_not_repeated(tmp_path: Path, how: str) -> None:
    (tmp_path / "config.toml").write_text(f'[gateway]\napi_keys = ["{KEY}"]\n' if how == "file" else "")
    refused = gateway(tmp_path, *(["--api-keys", KEY] if how == "flag" else []))
    assert refused.returncode == 2
    assert "a digest is 64 characters" in refused.stderr
    assert KEY not in refused.stderr
