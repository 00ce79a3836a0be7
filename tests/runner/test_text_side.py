"""A model's text side: its chat template in the sandbox, its tokenizer, the bytes of its tokens, its end tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.little_model import BOS, EOS, make, tokenizer
from thunderline.cluster.errors import InvalidRequest
from thunderline.runner import tokenizing
from thunderline.runner.chat_template import ChatTemplate, source
from thunderline.runner.token_bytes import TokenBytes

HELLO = [{"role": "user", "content": "<b>Hello</b>"}]
SPECIAL = {"bos_token": BOS, "eos_token": EOS}

RENDERED: dict[str, tuple[str, str]] = {
    "loops_and_blocks_leave_no_blank_lines": (
        "{% for m in messages %}\n    {{ m.role }}\n{% endfor %}\n{% if add_generation_prompt %}\n>\n{% endif %}\n",
        "    user\n>\n",
    ),
    "special_tokens_by_name": ("{{ bos_token }}{{ eos_token }}", BOS + EOS),
    "tojson_does_not_escape_html": ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>Hello</b>"}'),
    "tojson_with_indent": ("{{ {'a': 1} | tojson(indent=1) }}", '{\n "a": 1\n}'),
    "break_ends_a_loop": ("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "01"),
    "generation_tags_are_transparent": ("a{% generation %}b{% endgeneration %}c", "abc"),
    "the_year_is_there": ("{{ strftime_now('%Y') | length }}", "4"),
    "no_tools_are_no_tools": ("{% if tools %}tools{% else %}none{% endif %}", "none"),
}


@pytest.mark.parametrize("case", RENDERED)
def test_templates_render_as_transformers_does(case: str) -> None:
    template, expected = RENDERED[case]
    assert ChatTemplate(template, SPECIAL).render(HELLO) == expected


REFUSED: dict[str, tuple[str | None, str]] = {
    "no_template": (None, "/v1/completions"),
    "a_template_that_cannot_be_read": ("{% for %}", "/v1/completions"),
    "the_template_raises": ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
    "the_template_meets_what_it_does_not_expect": ("{{ messages[0]['content'] + 1 }}", "str"),
    "the_template_divides_by_zero": ("{{ 1 // 0 }}", "zero"),
    "the_template_reaches_for_python": ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "the_template_changes_what_it_was_given": ("{{ messages.append(1) }}", "unsafe"),
    "the_template_makes_a_huge_range": ("{% for n in range(10**9) %}{% endfor %}", "range"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_rendered_blames_the_messages(case: str) -> None:
    template, part = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(template, SPECIAL).render(HELLO)
    assert caught.value.param == "messages"
    assert part in caught.value.message


SOURCES: dict[str, tuple[str | None, dict[str, Any], str | None]] = {
    "a_string": (None, {"chat_template": "a"}, "a"),
    "the_default_of_several": (
        None,
        {"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]},
        "d",
    ),
    "a_file_wins": ("f", {"chat_template": "a"}, "f"),
    "none": (None, {}, None),
    "nonsense": (None, {"chat_template": 7}, None),
}


@pytest.mark.parametrize("case", SOURCES)
def test_where_the_template_is(case: str) -> None:
    file, settings, expected = SOURCES[case]
    assert source(file, settings) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("text") / "little")


async def test_a_chat_is_rendered_and_tokenized_with_its_own_bos_only(folder: Path) -> None:
    words = tokenizing.read(folder)
    ids = await words.encode_chat([{"role": "user", "content": "hi"}])
    assert words.tokenizer.decode(ids, skip_special_tokens=False) == f"{BOS}user: hi\nassistant: "
    assert ids.count(1) == 1


def _with_bos(folder: Path) -> None:
    """As Llama 3's tokenizer.json: a BOS before each text."""
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}},
    }
    tree["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(tree))


async def test_a_prompt_gets_the_bos_of_its_tokenizer_once_and_is_never_cut(tmp_path: Path) -> None:
    folder = make(tmp_path / "little")
    _with_bos(folder)
    words = tokenizing.read(folder)
    for prompt in ("the quick brown fox jumps", f"{BOS}the quick brown fox jumps", "the lazy dog. " * 1000):
        ids = await words.encode_prompt(prompt)
        assert ids.count(1) == 1
        assert words.decode(ids) == prompt.removeprefix(BOS)
    assert (await words.encode_chat([{"role": "user", "content": "hi"}])).count(1) == 1


async def test_a_long_text_tokenized_in_a_thread_has_the_same_ids(folder: Path) -> None:
    words = tokenizing.read(folder)
    text = "Pull a cable, kill a process: the answer goes on. 你好 " * 200
    assert len(text) > tokenizing.INLINE_LENGTH_MAX
    assert await words.encode_prompt(text) == words.tokenizer.encode(text).ids


END_TOKENS: dict[str, tuple[Any, Any, Any, tuple[int, ...]]] = {
    "one_in_config": (2, None, None, (2,)),
    "a_list_in_the_generation_config": (None, [5, 2], None, (2, 5)),
    "the_tokenizers_own": (None, None, EOS, (2,)),
    "all_together": (7, [5], {"content": EOS}, (2, 5, 7)),
    "a_name_that_is_no_token": (None, None, "<nothing>", ()),
    "none": (None, None, None, ()),
}


@pytest.mark.parametrize("case", END_TOKENS)
def test_end_tokens_come_from_all_three_files(tmp_path: Path, case: str) -> None:
    in_config, in_generation, in_tokenizer, expected = END_TOKENS[case]
    folder = make(tmp_path / "little")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": in_config}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": in_generation}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": in_tokenizer}))
    assert tokenizing.read(folder).end_token_ids == expected


BROKEN_FILES = {
    "config.json": "[1]",
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{",
    "generation_config.json": "7",
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "little")
    (folder / name).write_text(BROKEN_FILES[name])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        tokenizing.read(folder)


def test_the_bytes_of_tokens_joined_are_the_text(folder: Path) -> None:
    words = tokenizing.read(folder)
    for text in (" the quick 𝄞 brown", "你好\n😀", "e\u0301é"):
        ids = words.tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(words.token_bytes(token) for token in ids) == text.encode()
    assert words.token_bytes(2) == EOS.encode()
    assert words.token_bytes(10**6) == b""


def test_the_bytes_of_other_vocabularies() -> None:
    fallback = TokenBytes({"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}})
    assert fallback("<0xE4>") == b"\xe4"
    assert fallback("<0xZZ>") is None
    assert fallback("▁word") is None
    level = TokenBytes(json.loads(tokenizer().to_str()))
    assert level("Ġthe") == b" the"
    assert level(BOS) == BOS.encode()
