"""Stop strings on text, against a naive matcher that sees all of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderline.runner.stop_strings import StopMatcher


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: the text before the first stop string that is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def feed(pieces: list[str], stops: list[str]) -> tuple[str, bool, list[str]]:
    matcher = StopMatcher(stops)
    given_out = [matcher.feed(piece) for piece in pieces]
    given_out.append(matcher.finish())
    return "".join(given_out), matcher.hit is not None, given_out


few = st.text(alphabet="ab\n", max_size=12)


@settings(max_examples=1000, deadline=None)
@given(pieces=st.lists(few, max_size=10), stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4))
def test_it_finds_what_a_naive_matcher_finds_whatever_the_pieces(pieces: list[str], stops: list[str]) -> None:
    text, hit, given_out = feed(pieces, stops)
    assert (text, hit) == naive("".join(pieces), stops)
    # Nothing is given before it is certain: no piece has to be taken back.
    for count in range(len(given_out)):
        assert text.startswith("".join(given_out[:count]))


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(few, max_size=10), stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4))
def test_no_more_is_held_back_than_may_begin_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    matcher, seen, out = StopMatcher(stops), "", ""
    for piece in pieces:
        seen += piece
        out += matcher.feed(piece)
        if matcher.hit is not None:
            return
        held = seen[len(out) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


# pieces, stops -> text, stopped
CASES: dict[str, tuple[list[str], list[str], str, bool]] = {
    "a_stop_across_three_pieces": (["Say e", "n", "d now"], ["end"], "Say ", True),
    "the_one_that_is_complete_first_wins": (["abcd"], ["abcd", "c"], "ab", True),
    "of_two_that_end_together_the_longer_wins": (["xab"], ["b", "ab"], "x", True),
    "a_beginning_that_goes_on_otherwise_is_given": (["en", "ter"], ["end"], "enter", False),
    "a_beginning_at_the_end_is_given_with_the_finish": (["the en"], ["end"], "the en", False),
    "nothing_after_a_hit": (["end", "more"], ["end"], "", True),
    "a_beginning_inside_a_beginning": (["aab", "aac"], ["aabaaa", "baac"], "aa", True),
}


@pytest.mark.parametrize("case", CASES)
def test_stops(case: str) -> None:
    pieces, stops, text, hit = CASES[case]
    assert feed(pieces, stops)[:2] == (text, hit)
