"""What crosses the echo port comes back as it was; anything else is refused."""

import os
import uuid
from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.topology.echo_messages import (
    ANSWER_BYTES,
    ASK_BYTES,
    Answer,
    Ask,
    BadMessage,
    Kind,
    Tally,
    pack_answer,
    pack_ask,
    pack_tally,
    speaker,
    unpack_answer,
    unpack_ask,
    unpack_tally,
)

NODE = NodeId(str(uuid.UUID(int=7)))
WHO = speaker(NODE, "home")
NONCE = bytes(range(16))
ASK = Ask(Kind.ECHO, WHO, NONCE)
CABLE, LONG = End("en5", Medium.THUNDERBOLT), End("x" * 15, Medium.VPN)

ANSWERS = {
    "IPv4": Answer(Kind.ECHO, WHO, NONCE, "192.168.4.2", CABLE, CABLE),
    "IPv6": Answer(Kind.SINK, WHO, NONCE, "fd00::2", CABLE, LONG),
    "nobody can tell": Answer(Kind.ECHO, WHO, NONCE, "10.0.0.1", None, None),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_comes_as_it_was(answer: Answer) -> None:
    data = pack_answer(answer)
    assert len(data) == ANSWER_BYTES
    assert unpack_answer(data) == answer


def test_an_ask_and_a_tally_come_as_they_were() -> None:
    assert len(pack_ask(ASK)) == ASK_BYTES
    assert unpack_ask(pack_ask(ASK)) == ASK
    assert unpack_tally(pack_tally(Tally(2**40, 10_000_000))) == Tally(2**40, 10_000_000)


def test_clusters_of_other_names_are_others() -> None:
    assert speaker(NODE, "home") == WHO != speaker(NODE, "Home")


def test_a_node_without_a_uuid_cannot_speak() -> None:
    with pytest.raises(ValueError, match="UUID"):
        speaker(NodeId("me"), "home")


ASK_DATA, ANSWER_DATA = pack_ask(ASK), pack_answer(ANSWERS["IPv4"])
BAD_ASKS = {
    "nothing": b"",
    "too short": ASK_DATA[:-1],
    "too long": ASK_DATA + b"\0",
    "another protocol": b"HTTP" + ASK_DATA[4:],
    "another version": ASK_DATA[:4] + b"\x02" + ASK_DATA[5:],
    "an unknown kind": ASK_DATA[:5] + b"\x09" + ASK_DATA[6:],
}


@pytest.mark.parametrize("data", BAD_ASKS.values(), ids=BAD_ASKS.keys())
def test_other_bytes_are_no_ask(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack_ask(data)


def test_an_interface_has_a_name_that_can_be_printed() -> None:
    answer = replace(ANSWERS["IPv4"], arrives=End("en\x1b[2J", Medium.ETHERNET))
    with pytest.raises(BadMessage, match="name"):
        unpack_answer(pack_answer(answer))


def test_other_bytes_are_no_answer() -> None:
    for place in range(ANSWER_BYTES):
        for byte in (b"\0", b"\xff"):
            data = ANSWER_DATA[:place] + byte + ANSWER_DATA[place + 1 :]
            try:
                unpack_answer(data)
            except BadMessage:
                continue
    for _ in range(1000):
        with pytest.raises(BadMessage):
            unpack_answer(os.urandom(ANSWER_BYTES))
