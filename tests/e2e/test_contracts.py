"""What others build on: the protos alone, health, reflection, and Prometheus."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from installation import DEMO, GRPC_ROLES, Installation, until

ROOT = Path(__file__).parents[2]


def test_a_client_made_from_the_protos_alone_does_everything(
    fresh: Installation, demo_folder: Path, tmp_path: Path
) -> None:
    runpy.run_path(str(ROOT / "protos/generate.py"))["generate"](tmp_path / "stubs")
    script = Path(__file__).with_name("foreign_client.py")
    command = [sys.executable, str(script), str(tmp_path / "stubs"), str(fresh.base_port), str(demo_folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["modules"] == []
    for service in ("Discovery", "Topology", "Scheduler", "Runner"):
        assert found[service]["serving"], service
        assert found[service]["listed"], service
        assert found[service]["methods"], service
    assert found["tokens"] == 12
    assert found["messages"] >= 4
    assert found["finish"] == "FINISH_REASON_LENGTH"
    assert len(found["text"]) > 10
    assert found["cancelled"]
    assert found["bad"] in {"INVALID_ARGUMENT", "NOT_FOUND"}
    assert found["undeployed"]


def samples(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = httpx.get(url, timeout=10).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("role", [*GRPC_ROLES, "gateway"])
def test_a_prometheus_parser_reads_every_role(fresh: Installation, role: str) -> None:
    offset = GRPC_ROLES.get(role, 0) + (100 if role in GRPC_ROLES else 0)
    found = samples(f"http://127.0.0.1:{fresh.base_port + offset}/metrics")
    assert any(name == "thunderline_role_info" and dict(labels)["role"] == role for name, labels in found)


def test_one_request_moves_requests_tokens_and_time_to_first_token(fresh: Installation) -> None:
    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for (sample, has), value in samples(f"{fresh.url}/metrics").items()
            if sample == name and labels.items() <= dict(has).items()
        )

    def read() -> dict[str, float]:
        return {
            "requests": total("thunderline_requests_total", model=DEMO, code="200"),
            "in": total("thunderline_tokens_total", model=DEMO, direction="in"),
            "out": total("thunderline_tokens_total", model=DEMO, direction="out"),
            "first": total("thunderline_time_to_first_token_seconds_count", model=DEMO),
        }

    before = read()
    answer = fresh.openai().completions.create(model=DEMO, prompt="The sun is", max_tokens=5, temperature=0)
    assert answer.usage is not None
    used = answer.usage
    after = until("the counters moved", lambda: now if (now := read()) != before else None, 5)
    moved = {name: after[name] - before[name] for name in after}
    assert moved == {"requests": 1, "in": used.prompt_tokens, "out": used.completion_tokens, "first": 1}


def test_a_client_that_leaves_drops_its_sequence(fresh: Installation) -> None:
    def running() -> float:
        url = f"http://127.0.0.1:{fresh.base_port + 104}/metrics"
        return sum(value for (name, _), value in samples(url).items() if name == "thunderline_sequences_running")

    # Without its end token it cannot have ended by itself before it is left.
    stream = fresh.openai().completions.create(
        model=DEMO, prompt="Tell me", max_tokens=2000, logit_bias={"0": -100, "2": -100}, stream=True
    )
    for _ in zip(range(3), stream, strict=False):
        pass
    assert until("a running sequence", lambda: running() or None, 5) >= 1
    stream.close()
    until("no running sequence", lambda: running() == 0, 5)
    gone = samples(f"{fresh.url}/metrics")
    assert sum(value for (name, _), value in gone.items() if name == "thunderline_client_disconnects_total") >= 1


def test_a_repeated_prompt_is_found_and_said_in_usage_and_metrics(fresh: Installation) -> None:
    def hits() -> float:
        url = f"http://127.0.0.1:{fresh.base_port + 104}/metrics"
        name = "thunderline_prefix_cache_hit_tokens_total"
        return sum(value for (sample, _), value in samples(url).items() if sample == name)

    prompt = "The quick brown fox jumps over the lazy dog, again and again, until the two of them are tired of it."
    before = hits()
    for _ in range(2):
        answer = fresh.openai().completions.create(model=DEMO, prompt=prompt, max_tokens=2, temperature=0)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    found = answer.usage.prompt_tokens_details.cached_tokens
    assert found == answer.usage.prompt_tokens - 1
    until("the hit in the metrics", lambda: hits() - before == found, 5)
