"""Stories of requests that are answered or refused: a real runner and its text side, a rank that echoes the prompt."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.little_model import EOS, make
from runner.little_requests import FOX, LENGTH, STOP, first, idle, ids, removed
from runner.little_runner import PREPARED, ids_of, running, text_of
from runner.stand_in_rank import CONTEXT, KV_BUDGET, VOCABULARY_SIZE
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import (
    ContextLengthExceeded,
    InvalidRequest,
)
from thunderline.runner import tokenizing
from thunderline.v1 import cluster_pb2

S = cluster_pb2


async def test_an_answer_has_prompt_ids_first_and_finish_and_usage_last(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        prompt = ids(little, FOX)
        deltas = await little.deltas(text=FOX, max_tokens=len(prompt))
        assert list(deltas[0].prompt_token_ids) == prompt
        assert not any(delta.prompt_token_ids for delta in deltas[1:])
        assert ids_of(deltas) == prompt
        assert text_of(deltas) == FOX
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [LENGTH]
        last = deltas[-1]
        assert last.finish_reason == LENGTH
        assert last.usage == S.Usage(prompt_tokens=len(prompt), completion_tokens=len(prompt), cached_tokens=1)
        await idle(little)
        assert little.log().count("operation remove") == 0, "the engine ended it by itself"


async def test_a_chat_goes_through_the_models_template(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        chat = S.Chat(messages=[S.ChatMessage(role="user", content="你好 😀")])
        deltas = await little.deltas(chat=chat, max_tokens=60)
        words = tokenizing.read(little.settings.models / "little")
        assert words.tokenizer.decode(list(deltas[0].prompt_token_ids), skip_special_tokens=False) == (
            "<s>user: 你好 😀\nassistant: "
        )
        assert text_of(deltas) == words.decode(ids_of(deltas))
        assert not any("\N{REPLACEMENT CHARACTER}" in delta.text for delta in deltas[:-1])


async def test_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        deltas = await little.deltas(prompt_token_ids=S.TokenIds(ids=[5, 6, 8]), max_tokens=4)
        assert ids_of(deltas) == [5, 6, 8, 5]


async def test_an_end_token_ends_it_without_text_and_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        prompt = [*ids(little, "the"), 2, *ids(little, "fox")]
        wish = S.TokenIds(ids=prompt)
        deltas = await little.deltas(prompt_token_ids=wish, max_tokens=50)
        end = prompt.index(2) + 1
        assert ids_of(deltas) == prompt[:end]
        assert text_of(deltas) == "the"
        assert (deltas[-1].finish_reason, deltas[-1].usage.completion_tokens) == (STOP, end)
        await removed(little)
        through = await little.deltas(prompt_token_ids=wish, max_tokens=len(prompt), ignore_eos=True)
        assert (text_of(through), through[-1].finish_reason) == ("thefox", LENGTH)


async def test_a_stop_string_ends_it_at_once_and_is_never_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        deltas = await little.deltas(text=FOX, max_tokens=180, stop=["k bro", "never"])
        assert text_of(deltas) == "the quic"
        assert deltas[-1].finish_reason == STOP
        assert deltas[-1].usage.completion_tokens == len(ids_of(deltas))
        await removed(little)
        await idle(little)


async def test_what_may_begin_a_stop_string_is_given_with_the_finish(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        prompt = ids(little, FOX)
        deltas = await little.deltas(text=FOX, max_tokens=len(prompt), stop=["fox jumps"])
        assert text_of(deltas) == FOX


async def test_zero_max_tokens_is_as_many_as_there_is_room_for(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        deltas = await little.deltas(text=FOX)
        assert len(deltas[0].prompt_token_ids) + len(ids_of(deltas)) == KV_BUDGET
        assert deltas[-1].finish_reason == LENGTH


async def test_logprobs_carry_the_bytes_of_their_tokens(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        text = "你好 𝄞"
        prompt = ids(little, text)
        deltas = await little.deltas(text=text, max_tokens=len(prompt), logprobs=True, top_logprob_count=3)
        found = [logprob for delta in deltas for logprob in delta.logprobs]
        assert [one.token_id for one in found] == prompt
        assert b"".join(one.token_bytes for one in found) == text.encode()
        assert all(len(one.top) == 3 and one.logprob == -0.5 for one in found)
        plain = await little.deltas(text=text, max_tokens=3)
        assert not any(delta.logprobs for delta in plain)


@pytest.mark.parametrize("text", [FOX, "你好，世界 😀 𝄞 naïve", "ends at a stop"])
async def test_a_resume_after_any_token_gives_only_what_was_not_given(tmp_path: Path, text: str) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        wish: dict[str, Any] = {"text": text, "max_tokens": 24, "stop": ["a stop"]}
        whole = await little.deltas(**wish)
        made = ids_of(whole)
        given = ""
        by_count = {0: ""}
        for delta in whole:
            given += delta.text
            by_count[max(by_count) + len(delta.token_ids)] = given
        for count, before in by_count.items():
            if count == len(made):
                continue
            rest = await little.deltas(**wish, resume_token_ids=made[:count])
            assert before + text_of(rest) == text_of(whole), count
            assert made[:count] + ids_of(rest) == made
            assert rest[-1].finish_reason == whole[-1].finish_reason
            assert rest[-1].usage.completion_tokens == len(made)


async def test_a_resume_that_already_ends_the_request_is_finished_without_a_step(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        prompt = ids(little, FOX)
        for wish, reason in (
            ({"max_tokens": len(prompt)}, LENGTH),
            ({"stop": ["brown"]}, STOP),
            ({"stop": ["brown"], "max_tokens": 1}, LENGTH),
        ):
            deltas = await little.deltas(text=FOX, resume_token_ids=prompt, **wish)
            assert [delta.finish_reason for delta in deltas] == [reason]
            assert ids_of(deltas) == []
        ended = await little.deltas(text=FOX, resume_token_ids=[*prompt, 2])
        assert ended[-1].finish_reason == STOP
        assert ended[-1].usage.completion_tokens == len(prompt) + 1
        assert "operation insert" not in little.log()


async def test_four_at_once_each_get_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        texts = ["the quick", "brown fox", "你好", "lazy dog"]
        answers = await asyncio.gather(*(little.deltas(text=text, max_tokens=len(ids(little, text))) for text in texts))
        assert [text_of(answer) for answer in answers] == texts


LONG = S.TokenIds(ids=[5] * (CONTEXT + 1))
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no_request_id": ({"request_id": ""}, "request_id"),
    "an_empty_prompt": ({"text": ""}, "prompt"),
    "no_ids": ({"prompt_token_ids": S.TokenIds()}, "prompt"),
    "an_id_outside_the_vocabulary": ({"prompt_token_ids": S.TokenIds(ids=[VOCABULARY_SIZE])}, "prompt"),
    "a_huge_id": ({"prompt_token_ids": S.TokenIds(ids=[2**32 - 1])}, "prompt"),
    "no_messages": ({"chat": S.Chat()}, "messages"),
    "a_resumed_id_outside_the_vocabulary": ({"resume_token_ids": [VOCABULARY_SIZE]}, "resume_token_ids"),
    "a_temperature_that_is_no_number": ({"sampling": S.Sampling(temperature=float("nan"))}, "temperature"),
    "a_top_k_of_the_vocabulary": ({"sampling": S.Sampling(top_k=VOCABULARY_SIZE)}, "top_k"),
    "a_bias_for_no_token": ({"sampling": S.Sampling(logit_bias={VOCABULARY_SIZE: 1})}, "logit_bias"),
    "negative_max_tokens": ({"max_tokens": -1}, "max_tokens"),
    "an_empty_stop": ({"stop": [""]}, "stop"),
    "top_logprobs_alone": ({"top_logprob_count": 3}, "top_logprobs"),
}


async def test_bad_requests_are_refused_by_name_and_the_rank_never_hears_of_them(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        for case, (wish, param) in BAD.items():
            error = await little.refused(**wish)
            assert type(error) is InvalidRequest, (case, error)
            assert error.param == param, case
        long = await little.refused(prompt_token_ids=LONG)
        assert isinstance(long, ContextLengthExceeded)
        assert str(CONTEXT + 1) in long.message
        assert str(KV_BUDGET) in long.message
        assert "operation" not in little.log()
        good = await little.deltas(text="the", max_tokens=1)
        assert good[-1].finish_reason == LENGTH
        assert (await little.set_rank(PREPARED)).pid == pid


async def test_a_model_without_a_template_points_to_completions(tmp_path: Path) -> None:
    folder = make(tmp_path / "models" / "little")
    (folder / "tokenizer_config.json").write_text("{}")
    async with running(tmp_path) as little:
        await little.ready()
        error = await little.refused(chat=S.Chat(messages=[S.ChatMessage(role="user", content="hi")]))
        assert isinstance(error, InvalidRequest)
        assert error.param == "messages"
        assert "/v1/completions" in error.message


async def test_tokens_that_wait_for_a_slow_reader_are_joined(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        rank = little.ranks.find(RankId(InstanceId("i1"), 1, 0))
        assert rank is not None
        # Read from the generation itself: gRPC would buffer megabytes before it slows anybody down.
        call = little.generate(max_tokens=100)
        await first(call)
        generation = next(iter(rank.generations.values()))
        await idle(little)
        rest = [response.delta async for response in call]
        assert generation.finished
        assert len(ids_of(rest)) < 100
        assert rest[-1].usage.completion_tokens == 100


async def test_the_first_message_says_who_generates_also_of_a_resume(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        for wish in ({}, {"prompt_token_ids": cluster_pb2.TokenIds(ids=[5, 6]), "resume_token_ids": [7]}):
            deltas = await little.deltas(max_tokens=3, **wish)
            assert [one.instance for one in deltas] == ["i1"] + [""] * (len(deltas) - 1)


async def test_special_tokens_have_no_text(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        deltas = await little.deltas(text=f"the{EOS}fox", max_tokens=3, ignore_eos=True)
        assert EOS not in text_of(deltas)
