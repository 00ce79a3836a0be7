"""`make up` from an empty home: five roles, a rank, one ready line, and a curl that works as pasted."""

import json
import re
import subprocess

import pytest

from installation import DEMO, ROLES, Installation


def test_the_ready_line_names_the_endpoint(fresh: Installation) -> None:
    assert f"ready: {fresh.url}/v1" in fresh.lines


def test_the_printed_curl_answers_sensible_english(fresh: Installation) -> None:
    start = next(n for n, line in enumerate(fresh.lines) if line.lstrip().startswith("curl "))
    pasted = []
    for line in fresh.lines[start:]:
        pasted.append(line)
        if not line.endswith("\\"):
            break
    answer = subprocess.run(["bash", "-c", "\n".join(pasted)], capture_output=True, text=True, timeout=120, check=True)
    text = json.loads(answer.stdout)["choices"][0]["message"]["content"]
    assert len(re.findall(r"[A-Za-z]{2,}", text)) >= 3, text
    assert text.isprintable() or "\n" in text


def test_five_roles_and_a_rank_are_processes_of_their_own(fresh: Installation) -> None:
    assert {"up", "rank", *ROLES} <= set(fresh.processes().values())


def test_the_demo_knows_the_capital_of_france(fresh: Installation) -> None:
    answer = fresh.openai().chat.completions.create(
        model=DEMO,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=20,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    assert answer.choices[0].finish_reason == "stop"


def test_streaming_gives_the_same_text_as_one_piece(fresh: Installation) -> None:
    client = fresh.openai()
    question = {"model": DEMO, "messages": [{"role": "user", "content": "Name three fruits."}], "temperature": 0}
    whole = client.chat.completions.create(**question, max_tokens=40)  # type: ignore[call-overload]
    pieces, usage = [], None
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        **question, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 3
    assert usage is not None
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_n_answers_are_n_seeds(fresh: Installation) -> None:
    client = fresh.openai()
    question = {"model": DEMO, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0.9}
    both = client.completions.create(**question, n=2, seed=7)  # type: ignore[call-overload]
    second = client.completions.create(**question, seed=8)  # type: ignore[call-overload]
    texts = [choice.text for choice in sorted(both.choices, key=lambda choice: choice.index)]
    assert texts[1] == second.choices[0].text
    assert texts[0] != texts[1]


def test_a_stop_string_ends_the_answer_and_is_not_in_it(fresh: Installation) -> None:
    client = fresh.openai()
    free = client.completions.create(model=DEMO, prompt="One, two, three, four,", max_tokens=24, temperature=0)
    text = free.choices[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    stopped = client.completions.create(
        model=DEMO, prompt="One, two, three, four,", max_tokens=24, temperature=0, stop=stop
    )
    assert stopped.choices[0].text == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("command", ["status", "nodes", "models", "deployments"])
def test_every_table_has_json_beside_it(fresh: Installation, command: str) -> None:
    table, document = fresh.run(command), fresh.run(command, "--json")
    assert table.returncode == 0, table.stderr
    assert table.stdout.strip()
    assert json.loads(document.stdout)


def test_chat_answers_once_when_given_a_prompt(fresh: Installation) -> None:
    answer = fresh.run("chat", "What is the capital of France?", "--temperature", "0", "--max-tokens", "40")
    assert answer.returncode == 0, answer.stderr
    assert "Paris" in answer.stdout


def test_models_lists_what_is_really_served(fresh: Installation) -> None:
    assert [model.id for model in fresh.openai().models.list()] == [DEMO]
