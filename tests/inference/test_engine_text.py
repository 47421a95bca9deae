"""What may be asked of the engine, and how tokens become text: whole characters, up to a stop string."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import GenerationRequest
from inference.engine.sampling import Sampler
from inference.engine.text import TextStream, Vocabulary

ALPHABET = [bytes([byte]) for byte in range(256)]


class Bytes(Vocabulary):
    """A vocabulary in which token n is byte n."""

    def __init__(self) -> None:
        self._bytes = dict(enumerate(ALPHABET))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "def \ud800"}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.0001}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_p": -1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": float("nan")}, "top_k"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 0.09}, "repetition_penalty"),
        ({"repetition_penalty": 10.1}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"repetition_penalty": "2"}, "repetition_penalty"),
        ({"logprobs": 1}, "logprobs"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"stop": "\n"}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a"] * 10_000}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a" * 101]}, "stop[0]"),
        ({"stop": ["\udfff"]}, "stop[0]"),
        ({"stop": [None]}, "stop[0]"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(EngineError) as refusal:
        GenerationRequest.from_json({"prompt": "def", **changes})
    assert (refusal.value.code, refusal.value.field) == ("INVALID", field)


def test_the_limits_themselves_can_be_used() -> None:
    body = {"prompt": "", "max_new_tokens": 1, "temperature": 0, "top_p": 1, "seed": -(2**63), "stop": ["a" * 100] * 16}
    assert GenerationRequest.from_json(body) == GenerationRequest("", 1, 0, 1, -(2**63), ("a" * 100,) * 16)
    more = {"top_k": 2**31 - 1, "repetition_penalty": 10, "logprobs": True}
    assert GenerationRequest.from_json(body | more).top_k == 2**31 - 1
    absent = {"prompt": "x", "max_new_tokens": None, "temperature": None, "top_p": None, "seed": None, "stop": None}
    assert GenerationRequest.from_json(absent) == GenerationRequest("x", 128, 0.0, 1.0, None, ())


@pytest.mark.parametrize(
    ("given", "stop", "pieces", "why"),
    [
        (b"ab", (), ["a", "b", ""], "plain"),
        ("é🙂".encode(), (), ["", "é", "", "", "", "🙂", ""], "a character appears with its last byte"),
        (b"a\xf0\x9f", (), ["a", "", "", ""], "a character without its end is left out"),
        (b"\xffa\xc3b", (), ["\ufffd", "a", "", "\ufffdb", ""], "bytes that are no UTF-8 are replaced"),
        (b"x\n\ny", ("\n\n",), ["x", "", "", ""], "up to the stop string, which spans tokens"),
        (b"x\ny", ("\n\n",), ["x", "", "\ny", ""], "what was no stop string after all"),
        (b"x\n", ("\n\n",), ["x", "", "\n"], "held back, and the end comes"),
        (b"aab", ("ab",), ["", "a", "", ""], "a false start"),
        (b"abc", ("abcd", "b"), ["", "a", ""], "the stop string that is whole first"),
        ("a→".encode(), ("→",), ["a", "", "", "", ""], "a stop string of several bytes"),
    ],
)
def test_pieces_of_text(given: bytes, stop: tuple[str, ...], pieces: list[str], why: str) -> None:
    stream = TextStream(Bytes(), stop)
    found = []
    for byte in given:
        found.append(stream.push(byte))
        if stream.stopped:
            break
    assert [*found, stream.close()] == pieces, why


def test_pieces_add_up_to_the_tokenizers_own_text(engine: Engine) -> None:
    text = "größe → 🙂 \x00 \u2028 \u202e def add(a, b):\n\treturn 'ñ'" * 3
    tokens = engine._tokenizer.encode(text)
    stream = TextStream(engine._vocabulary, ("no such text",))
    assert "".join([stream.push(token) for token in [0, *tokens, 0]]) + stream.close() == text


def test_a_stop_string_within_one_token() -> None:
    vocabulary = Bytes()
    vocabulary._bytes[300] = b"ab\nstop here"
    stream = TextStream(vocabulary, ("top", "\n"))
    assert (stream.push(300), stream.stopped, stream.close()) == ("ab", True, "")


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()

    def shares(**options: float) -> list[float]:
        sampler = Sampler(GenerationRequest("x", seed=5, **options))  # type: ignore[arg-type]
        counts = Counter(sampler.choose(logits) for _ in range(4000))
        return [counts[token] / 4000 for token in range(4)]

    assert shares(temperature=1) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)
    assert shares(temperature=1, top_p=0.7) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert shares(temperature=1, top_p=1e-9) == [1, 0, 0, 0]
    assert shares(temperature=0.5) == pytest.approx([0.725, 0.181, 0.065, 0.029], abs=0.03)
    assert shares(temperature=5e-324) == [1, 0, 0, 0]
    assert shares(temperature=1e308) == pytest.approx([0.25] * 4, abs=0.03)
    assert shares(temperature=0) == [1, 0, 0, 0]


def test_top_k_takes_the_first_of_equal_ones() -> None:
    logits = torch.tensor([0.1, 0.3, 0.3, 0.3]).log()

    def chosen(**options: float) -> Counter[int]:
        sampler = Sampler(GenerationRequest("x", seed=5, temperature=1, **options))  # type: ignore[arg-type]
        return Counter(sampler.choose(logits) for _ in range(2000))

    assert chosen(top_k=1) == {1: 2000}
    assert set(chosen(top_k=2)) == {1, 2}
    assert set(chosen(top_k=4)) == set(chosen(top_k=100)) == {0, 1, 2, 3}
    assert set(chosen(top_p=0.4)) == {1, 2}
    assert chosen(top_k=2, top_p=0.4) == {1: 2000}, "top_p is a share of what top_k has left"


def test_what_was_said_is_said_less() -> None:
    """Positive logits are divided by the penalty, negative ones multiplied: of the prompt's tokens, and of the answer's."""
    sampler = Sampler(GenerationRequest("x", repetition_penalty=2.0), prompt=[0])
    assert sampler.choose(torch.tensor([1.9, 1.0, -1.0])) == 1, "1.9 / 2 is less than 1"
    assert sampler.choose(torch.tensor([1.9, 1.0, -1.0])) == 0, "1.0 / 2 is less than 1.9 / 2"
    assert sampler.choose(torch.tensor([-0.4, -0.6, -0.7])) == 2, "-0.4 and -0.6 times two are less than -0.7"
    plain = Sampler(GenerationRequest("x"), prompt=[0])
    assert plain.choose(torch.tensor([1.9, 1.0, -1.0])) == 0


def test_numbers_that_are_not_finite_are_typed() -> None:
    for odd in (torch.nan, torch.inf):
        with pytest.raises(EngineError) as failure:
            Sampler(GenerationRequest("x", temperature=1)).choose(torch.tensor([0.0, odd]))
        assert failure.value.code == "NUMERICS"
