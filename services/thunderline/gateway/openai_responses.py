"""OpenAI's answers: whole ones and chunks, as its official client reads them. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thunderline.gateway.certain_logprobs import CertainLogprobs, Placed
from thunderline.v1 import cluster_pb2

FINISH = {cluster_pb2.FINISH_REASON_STOP: "stop", cluster_pb2.FINISH_REASON_LENGTH: "length"}
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


@dataclass
class Choice:
    """One choice as it grows. `wants_logprobs`: the request asked for them."""

    index: int
    wants_logprobs: bool = False
    text: list[str] = field(default_factory=list)
    logprobs: list[Placed] = field(default_factory=list)
    finish: str | None = None
    usage: cluster_pb2.Usage = field(default_factory=cluster_pb2.Usage)
    token_count: int = 0
    _certain: CertainLogprobs = field(default_factory=CertainLogprobs)

    def add(self, delta: cluster_pb2.GenerationDelta) -> Sequence[Placed]:
        """The log-probabilities that go with its text."""
        self.text.append(delta.text)
        self.token_count += len(delta.token_ids)
        if delta.finish_reason:
            self.finish = FINISH.get(delta.finish_reason, "stop")
            self.usage = delta.usage
        if not self.wants_logprobs:
            return ()
        certain = self._certain.take(delta)
        self.logprobs += certain
        return certain


@dataclass(frozen=True)
class Answer:
    """The frame around the choices of one request."""

    id: str
    created_s: int
    model: str
    is_chat: bool
    # How many choices share a prompt: its tokens are counted once.
    choices_per_prompt: int

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return {
            **self._frame("chat.completion" if self.is_chat else "text_completion"),
            "choices": [self._whole_choice(choice) for choice in choices],
            "usage": self.usage(choices),
        }

    def chunk(
        self, index: int, delta: cluster_pb2.GenerationDelta, logprobs: Sequence[Placed], include_usage: bool
    ) -> dict[str, Any]:
        """`logprobs` are those that go with it, not the delta's own."""
        finish = FINISH.get(delta.finish_reason) if delta.finish_reason else None
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        if self.is_chat:
            choice["delta"] = {"content": delta.text} if delta.text or not finish else {}
        else:
            choice["text"] = delta.text
        choice["logprobs"] = self._logprobs(logprobs) if logprobs else None
        return self._chunk([choice], include_usage)

    def first_chunk(self, index: int, include_usage: bool) -> dict[str, Any]:
        """A chat's role comes before its text."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}], include_usage)

    def usage_chunk(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return {**self._chunk([], False), "usage": self.usage(choices)}

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        prompts = choices[:: self.choices_per_prompt]
        prompt = sum(choice.usage.prompt_tokens for choice in prompts)
        made = sum(choice.usage.completion_tokens for choice in choices)
        cached = sum(choice.usage.cached_tokens for choice in prompts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created_s, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]], include_usage: bool) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        frame = {**self._frame(kind), "choices": choices}
        # With include_usage every chunk but the last says that its usage is null.
        return {**frame, "usage": None} if include_usage else frame

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        text = "".join(choice.text)
        found: dict[str, Any] = {
            "index": choice.index,
            "finish_reason": choice.finish,
            "logprobs": self._logprobs(choice.logprobs) if choice.wants_logprobs else None,
        }
        if self.is_chat:
            return {**found, "message": {"role": "assistant", "content": text, "refusal": None}}
        return {**found, "text": text}

    def _logprobs(self, found: Sequence[Placed]) -> dict[str, Any]:
        if self.is_chat:
            return {"content": [_content(one) for one in found]}
        return {
            "tokens": [one.entry.token for one in found],
            "token_logprobs": [one.entry.logprob for one in found],
            "top_logprobs": [{top.token: top.logprob for top in one.entry.top} for one in found],
            # Within the choice's text, as it has no prompt before it.
            "text_offset": [one.offset for one in found],
        }


def _content(one: Placed) -> dict[str, Any]:
    made = _entry(one.entry)
    if not one.in_text:
        # So that the bytes of all entries joined are the text's.
        made["bytes"] = None
    return {**made, "top_logprobs": [_entry(top) for top in one.entry.top]}


def _entry(one: cluster_pb2.TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token_bytes)}
