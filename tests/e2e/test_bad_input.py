"""Bad input over HTTP gets a clear error, and the same server answers a good request afterwards."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from installation import DEMO, Installation, end, until

HELLO = [{"role": "user", "content": "Hello"}]

# path, body, status, code, param
CASES: dict[str, tuple[str, Any, int, str | None, str | None]] = {
    "an_unknown_model": ("chat/completions", {"model": "nope", "messages": HELLO}, 404, "model_not_found", "model"),
    "malformed_json": ("chat/completions", b'{"model": ', 400, None, None),
    "json_that_is_no_object": ("chat/completions", b"[1, 2]", 400, None, None),
    "a_number_as_model": ("chat/completions", {"model": 5, "messages": HELLO}, 400, None, "model"),
    "a_string_as_max_tokens": (
        "chat/completions",
        {"model": DEMO, "messages": HELLO, "max_tokens": "ten"},
        400,
        None,
        "max_tokens",
    ),
    "missing_messages": ("chat/completions", {"model": DEMO}, 400, None, "messages"),
    "empty_messages": ("chat/completions", {"model": DEMO, "messages": []}, 400, None, "messages"),
    "negative_max_tokens": (
        "chat/completions",
        {"model": DEMO, "messages": HELLO, "max_tokens": -1},
        400,
        None,
        "max_tokens",
    ),
    "a_parameter_that_is_not_supported": (
        "chat/completions",
        {"model": DEMO, "messages": HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]},
        400,
        None,
        "tools",
    ),
    "a_parameter_that_nobody_knows": (
        "chat/completions",
        {"model": DEMO, "messages": HELLO, "temprature": 1},
        400,
        None,
        "temprature",
    ),
    "an_empty_prompt": ("completions", {"model": DEMO, "prompt": ""}, 400, None, "prompt"),
    "a_stop_with_null": ("completions", {"model": DEMO, "prompt": "a", "stop": [None]}, 400, None, "stop"),
    "a_top_k_above_the_vocabulary": ("completions", {"model": DEMO, "prompt": "a", "top_k": 60000}, 400, None, "top_k"),
    "a_token_id_out_of_range": ("completions", {"model": DEMO, "prompt": [1, 10**9]}, 400, None, "prompt"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_a_typed_error(fresh: Installation, case: str) -> None:
    path, body, status, code, param = CASES[case]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{fresh.url}/v1/{path}", content=content, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert error["param"] == param
    if code:
        assert error["code"] == code
    assert fresh.answers()


def test_a_prompt_longer_than_the_context_gets_both_figures(fresh: Installation) -> None:
    prompt = "word " * 9000
    answer = httpx.post(
        f"{fresh.url}/v1/completions", json={"model": DEMO, "prompt": prompt, "max_tokens": 5}, timeout=60
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "8192" in error["message"].replace(",", "")
    assert "900" in error["message"].replace(",", "")
    assert fresh.answers()


def test_a_body_above_the_limit_is_413(fresh: Installation) -> None:
    body = {"model": DEMO, "messages": [{"role": "user", "content": "x" * (5 * 1024 * 1024)}]}
    answer = httpx.post(f"{fresh.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 413
    assert fresh.answers()


def _broken(folder: Path, good: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the good model (big files linked), changed."""
    folder.mkdir()
    for file in good.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    change(folder)
    return folder


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    target = file.resolve()
    file.unlink()
    with target.open("rb") as whole:
        file.write_bytes(whole.read(1_000_000))


def _rename_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "frobnicator"
    (folder / "config.json").write_text(json.dumps(config))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "without_config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "truncated_weights": (_truncate, "model.safetensors"),
    "unknown_architecture": (_rename_architecture, "frobnicator"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_deploying_a_broken_folder_says_why_within_seconds(fresh: Installation, demo_folder: Path, case: str) -> None:
    change, expected = BROKEN[case]
    folder = _broken(fresh.home / "models" / f"broken-{case}", demo_folder, change)
    pids = fresh.processes()
    try:
        answer = fresh.run("deploy", str(folder), timeout_s=30)
    finally:
        fresh.run("undeploy", folder.name, timeout_s=30)
    assert answer.returncode == 1, answer.stdout
    assert expected in answer.stdout + answer.stderr
    assert fresh.answers()
    assert pids.items() <= fresh.processes().items(), "a role went down"


def test_deploying_a_path_that_does_not_exist_says_so(fresh: Installation) -> None:
    answer = fresh.run("deploy", "/nowhere/model", timeout_s=30)
    fresh.run("undeploy", "model", timeout_s=30)
    assert answer.returncode == 1
    assert "/nowhere/model" in answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, demo_folder: Path) -> Any:
    """An installation with a queue of two, room for one request at the rank, and a short queue wait."""
    small = {
        "THUNDERLINE_LIMITS_QUEUE_SIZE_MAX": "2",
        "THUNDERLINE_LIMITS_RANK_REQUEST_COUNT_MAX": "1",
        "THUNDERLINE_LIMITS_QUEUE_WAIT_S": "1",
    }
    installation = Installation(tmp_path_factory.mktemp("narrow") / "home", environment=small)
    installation.start("--model", str(demo_folder))
    try:
        yield installation
    finally:
        end(installation)


def test_a_model_that_is_still_loading_is_waited_for_and_then_503(narrow: Installation) -> None:
    """First of the two: the installation has just been started."""

    def refused() -> httpx.Response | None:
        try:
            answer = httpx.post(
                f"{narrow.url}/v1/chat/completions",
                json={"model": DEMO, "messages": HELLO, "max_tokens": 1},
                timeout=30,
            )
        except httpx.TransportError:
            return None
        waited = answer.status_code == 503 and answer.json()["error"]["code"] == "no_ready_instance"
        return answer if waited else None

    answer = until("a 503 after the queue wait", refused, 30)
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.elapsed.total_seconds() >= 1
    readiness = httpx.get(f"{narrow.url}/readyz", timeout=10)
    assert readiness.status_code == 503
    assert "error" in answer.json()


def test_a_full_queue_is_429_with_retry_after(narrow: Installation) -> None:
    narrow.wait_ready()
    body = {"model": DEMO, "prompt": "Tell me a story.", "max_tokens": 60, "temperature": 0}
    answers: list[httpx.Response] = []

    def post() -> None:
        answers.append(httpx.post(f"{narrow.url}/v1/completions", json=body, timeout=120))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}, codes
    assert codes.count(200) >= 3
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)
    assert narrow.answers()
