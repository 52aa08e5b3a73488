from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from metier.inference.speech import Decode, Speech


def decode(tokens: Sequence[int]) -> str:
    """Of a tokenizer of bytes: characters beyond ASCII take several."""
    return bytes(tokens).decode("utf-8", errors="replace")


def pieces(text: str, stop: Sequence[str] = (), decode: Decode = decode) -> list[str]:
    speech = Speech(decode, stop)
    said = []
    for token in text.encode():
        said.append(speech.push(token))
        if speech.stopped:
            break
    return [*said, speech.end()]


@given(some.text(max_size=40))
def test_the_pieces_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(some.text(alphabet="a \né€", max_size=300))
def test_the_pieces_of_a_long_text_are_the_text_without_its_ends(text: str) -> None:
    assert "".join(pieces(text, decode=lambda tokens: decode(tokens).strip())) == text.strip()


def fallen(tokens: Sequence[int]) -> str:
    """Of a tokenizer of SentencePiece's: where a byte of a run is missing, all of the run's are broken."""
    return "".join(_run(bytes(run)) for _, run in groupby(tokens, key=lambda token: token >= 0x80))


def _run(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)


@given(some.text(alphabet="ab\u12a0\U0001f389", max_size=120))
@example("Done! " + "\U0001f389\U0001f973" * 12 + " ok")
def test_a_long_run_of_bytes_is_said_as_it_is(text: str) -> None:
    assert "".join(pieces(text, decode=fallen)) == text


def test_of_a_long_answer_the_latest_tokens_are_decoded_alone() -> None:
    taken = list[int]()

    def counted(tokens: Sequence[int]) -> str:
        taken.append(len(tokens))
        return decode(tokens)

    text = "Naïve cafés cost 3 € more. " * 40
    assert "".join(pieces(text, decode=counted)) == text
    *said, end = taken
    assert [end, max(said) < 40] == [len(text.encode()), True]


@given(
    some.text(alphabet="abc", max_size=30), some.lists(some.text(alphabet="abc", min_size=1, max_size=4), max_size=3)
)
def test_it_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    ends = [text.find(each) for each in stop if each in text]
    # The stop string that is whole first ends it, and none of it is said.
    shortest = min((text.find(each) + len(each) for each in stop if each in text), default=len(text))
    read = text[:shortest]
    expected = read[: min((read.find(each) for each in stop if each in read), default=len(read))]
    assert "".join(pieces(text, stop)) == expected
    assert bool(ends) == (expected != text)


def test_characters_come_whole() -> None:
    assert pieces("aé€") == ["a", "", "é", "", "", "€", ""]


@pytest.mark.parametrize(("text", "said"), [("fin END more", "fin "), ("fin EN", "fin EN"), ("ENEND", "EN")])
def test_what_may_become_a_stop_string_is_held_back(text: str, said: str) -> None:
    found = pieces(text, ["END"])
    assert "".join(found) == said
    assert not any(piece.endswith("E") for piece in found[:-1])


def test_a_long_stop_string_takes_no_longer_than_a_short_one() -> None:
    text, begun = "the box is open, " * 20, time.thread_time()
    assert "".join(pieces(text, ["open" + "x" * 1_000_000])) == text
    assert time.thread_time() - begun < 1


def test_a_character_that_is_never_whole_is_looked_at_now_and_then() -> None:
    looked = list[int]()

    def counted(tokens: Sequence[int]) -> str:
        looked.append(len(tokens))
        return fallen(tokens)

    speech = Speech(counted)
    for _ in range(3000):
        assert speech.push(0x80) == ""
    assert sum(looked) < 3000 * 100
    assert speech.end() == "\ufffd" * 3000
