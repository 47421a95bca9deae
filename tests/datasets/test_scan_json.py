"""The compiled loop over JSON records takes nothing that the strict decoder refuses, says the same, and takes what is common."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.reading.scan.json_records import Scan
from datasets.pipeline.reading.scan.json_values import MOST_DEPTH, MOST_INNER_KEY_BYTES, MOST_INNER_KEYS
from datasets.pipeline.reading.shapes import MAX_KEY_BYTES, Shapes
from datasets.pipeline.rows import MAX_LINE_BYTES
from tests.datasets.test_fast_and_strict import CHAT, PAIR, TEXT, Never, line, read

KEYS = frozenset({"text", "meta"})
PLAIN = Columns(text="text")  # meta is of no interest
SHAPE = b'{"text": "a", "meta": 1}'

# What may stand in a value, cut to pieces that meet each other in all ways.
PIECES = [
    *b'"\\/bfnrtuae0189 -+.,:{}[]\t\r\x00\x1f\x7f',
    *(b"\\u", b"\\u0000", b"\\ud83d", b"\\ude00", b"\\u00e9", b"\\uD7FF", b"\\uE000", b"\\u004", b"\\u00g0", b"\\u0022"),
    *(b"\xc2\x80", b"\xc1\xbf", b"\xc0\x80", b"\xe0\xa0\x80", b"\xe0\x9f\xbf", b"\xed\x9f\xbf", b"\xed\xa0\x80"),
    *(b"\xee\x80\x80", b"\xf0\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5"),
    *(b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc3"),
    *(b"true", b"false", b"null", b"nul", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e99", b"-0", b"-0.0", b"1.", b"1e"),
    *(b"9" * 17, b"9" * 61, b"{}", b"[]", b'{"a": 1}', b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'[{"a":1},{"a":2}]'),
    *(b"a" * 31, b"a" * 32, b"a" * 33, b'","', b'": "', b'"meta"', b'"text"', b'"te\\u0078t"', b" " * 40),
]  # fmt: skip
piece = st.sampled_from([one if isinstance(one, bytes) else bytes([one]) for one in PIECES])
pieces = st.lists(piece, max_size=8).map(b"".join)
framed = st.sampled_from(
    [
        b'{"text": "%s", "meta": 1}',
        b'{"text": "a", "meta": %s}',
        b'{"text": "a", "meta": "%s"}',
        b'{"meta": %s, "text": "a"}',
        b'{"text": %s, "meta": 1}',
        b'{"text": "a", "meta": [%s]}',
        b'{"text": "a", "meta": {"x": %s}}',
        b'{"text": "a", "meta": {%s}}',
        b'{"text": "a"%s, "meta": 1}',
        b'{"text": "a", "meta": 1}%s',
        b'%s{"text": "a", "meta": 1}',
        b'{%s"text": "a", "meta": 1}',
    ]
)


@st.composite
def mutated(draw: Any) -> bytes:
    """A record with something in one of its places, and then perhaps cut off, or with a byte changed."""
    raw = draw(framed).replace(b"%s", draw(pieces))
    kind = draw(st.sampled_from(["whole", "whole", "cut", "flipped", "twice"]))
    at = draw(st.integers(0, len(raw) - 1))
    if kind == "cut":
        raw = raw[:at]
    elif kind == "flipped":
        raw = raw[:at] + bytes([raw[at] ^ 1 << draw(st.integers(0, 7))]) + raw[at + 1 :]
    elif kind == "twice":
        raw = raw[:at] + raw[draw(st.integers(0, len(raw))) :]
    return raw.replace(b"\n", b" ")


def _taken(raws: list[bytes], columns: Columns = PLAIN, keys: frozenset[str] = KEYS) -> tuple[list[int], list[int]]:
    """The positions of what the loop takes, and of what it leaves to a decoder."""
    found = Scan()(Lines.of(raws), np.arange(len(raws)), columns, [keys])
    assert found is not None
    return [place for part in found.parts for place in part.positions.tolist()], found.odd.tolist()


@given(raws=st.lists(mutated(), max_size=12), columns=st.sampled_from([PLAIN, TEXT]))
@settings(max_examples=400, deadline=None)
def test_mutated_records_are_kept_and_refused_as_by_the_strict_decoder(raws: list[bytes], columns: Columns) -> None:
    raws = [SHAPE, *raws]
    assert read(raws, columns, Shapes(Scan())) == read(raws, columns, Never())


@given(raws=st.lists(line(), max_size=12), columns=st.sampled_from([PAIR, TEXT, PLAIN, CHAT]))
@example(raws=[SHAPE, b'{"text": "a", "text": "b", "meta": 1}', b'{"te\\u0078t": "a", "text": "b"}'], columns=TEXT)
@settings(max_examples=200, deadline=None)
def test_generated_records_are_kept_and_refused_as_by_the_strict_decoder(raws: list[bytes], columns: Columns) -> None:
    assert read(raws, columns, Shapes(Scan())) == read(raws, columns, Never())


def test_each_byte_and_each_pair_beyond_ascii_ends_as_it_does_strictly() -> None:
    """In front of a border of what is looked at at once, on it, and behind it."""
    ends = [bytes([one]) for one in range(256)] + [
        bytes([one, two]) for one in range(0xC0, 256) for two in range(0x7E, 0xC2)
    ]
    raws = [
        SHAPE,
        *(
            b'{"text": "' + b"a" * before + end + behind + b'", "meta": 1}'
            for end in ends
            for before in (0, 31)
            for behind in (b"", b"\x80", b"\x80\x80")
            if end != b"\n"
        ),
    ]
    assert read(raws, PLAIN, Shapes(Scan())) == read(raws, PLAIN, Never())


def test_each_escape_ends_as_it_does_strictly() -> None:
    escapes = [b"\\" + bytes([one]) for one in range(256) if one != 0x0A]
    escapes += [b"\\u%04x" % unit for unit in range(0, 0x10000, 0x7F)]
    escapes += [
        b"\\u%04X\\u%04x" % pair for pair in [(0xD800, 0xDC00), (0xDBFF, 0xDFFF), (0xD800, 0xDBFF), (0xDC00, 0xD800)]
    ]
    escapes += [b"\\ud800", b"\\ud800\\n", b"\\ud800x", b"\\ud800\\udc0", b"\\u", b"\\u00", b"\\uD800\\UDC00"]
    raws = [SHAPE]
    for key in (b"text", b"meta"):
        other = b"meta" if key == b"text" else b"text"
        raws += [b'{"%s": "%s", "%s": "b"}' % (key, escape, other) for escape in escapes]
    assert read(raws, PLAIN, Shapes(Scan())) == read(raws, PLAIN, Never())


@pytest.mark.parametrize(
    "value",
    [
        b'"say \\"a\\": \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9\\u4e2d\\ud83d\\ude00"',
        "\"\u00e9\u4e2d\U0001f600\u2028\x7f\"".encode(),
        b"0",
        b"-0",
        b"-12.50e+10",
        b"1E-99",
        b"9" * 60,
        b"true",
        b"false",
        b"null",
        b"[]",
        b"{ }",
        b'[1, [2, [3, {"a": [], "b": {"a": null}}]], "x"]',
        b'{"a": {"a": 1}, "b": {"a": 1}, "": 2, "\xc3\xa9": [{"a": 1}, {"a": 2}]}',
        b"[" * MOST_DEPTH + b"0" + b"]" * MOST_DEPTH,
        b'{' + b",".join(b'"k%d":%d' % (number, number) for number in range(MOST_INNER_KEYS)) + b"}",
        b'{"' + b"k" * MOST_INNER_KEY_BYTES + b'": 1}',
    ],
)  # fmt: skip
def test_what_is_common_is_taken(value: bytes) -> None:
    raws = [b'{"text": "a", "meta": ' + value + b"}", b' \t{"meta" :' + value + b'\r,\t"text": "a" } \r']
    assert _taken(raws) == ([0, 1], [])


@pytest.mark.parametrize(
    "value",
    [
        b"9" * 61,
        b"1e100",
        b"[" * (MOST_DEPTH + 1) + b"0" + b"]" * (MOST_DEPTH + 1),
        b'{"\\u0061": 1}',
        b"{" + b",".join(b'"k%d":%d' % (number, number) for number in range(MOST_INNER_KEYS + 1)) + b"}",
        b'{"' + b"k" * (MOST_INNER_KEY_BYTES + 1) + b'": 1}',
    ],
)
def test_what_it_does_not_understand_is_left_to_a_decoder(value: bytes) -> None:
    assert _taken([SHAPE, b'{"text": "a", "meta": ' + value + b"}", SHAPE]) == ([0, 2], [1])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{}",
        b"[" + SHAPE + b"]",
        SHAPE + SHAPE,
        SHAPE[:-1],
        b'{"text": "a"}',
        b'{"text": "a", "meta": 1, "more": 2}',
        b'{"text": "a", "meta": 1, "meta": 2}',
        b'{"text": "a", "meta": 1,}',
        b'{"text": "a" "meta": 1}',
        b'{"text": "a", "meta": 01}',
        b'{"text": "a", "meta": +1}',
        b'{"text": "a", "meta": .5}',
        b'{"text": "a", "meta": 1.}',
        b'{"text": "a", "meta": 1.e5}',
        b'{"text": "a", "meta": 1e}',
        b'{"text": "a", "meta": 1e+}',
        b'{"text": "a", "meta": -}',
        b'{"text": "a", "meta": nul}',
        b'{"text": "a", "meta": nulls}',
        b'{"text": "a", "meta": True}',
        b'{"text": "a", "meta": NaN}',
        b'{"text": "a", "meta": -Infinity}',
        b'{"text": "a", "meta": [1,]}',
        b'{"text": "a", "meta": [1}',
        b'{"text": "a", "meta": {"a": 1]}',
        b'{"text": "a", "meta": {"a": 1, "a": 2}}',
        b'{"text": "a", "meta": [{"b": {}, "a": 1, "b": 2}]}',
        b'{"text": "a", "meta": {"a" 1}}',
        b'{"text": null, "meta": 1}',
        b'{"text": 1, "meta": 1}',
        b'{"text": "\\u0000", "meta": 1}',
        b'{"text": "\\ud800", "meta": 1}',
        b'{"text": "a\tb", "meta": 1}',
        b'{"text": "a", "meta": "\xed\xa0\x80"}',
        b'{"text": "a", "meta": 1}\x00',
        b'{"text": "a",\x0b "meta": 1}',
        b"\xef\xbb\xbf" + SHAPE,
        b'{"text": "' + b"a" * MAX_LINE_BYTES + b'", "meta": 1}',
    ],
)
def test_what_is_broken_is_taken_by_nobody(raw: bytes) -> None:
    assert _taken([SHAPE, raw, SHAPE]) == ([0, 2], [])
    assert read([SHAPE, raw, SHAPE], PLAIN, Shapes(Scan())) == read([SHAPE, raw, SHAPE], PLAIN, Never())


def test_a_shape_with_long_keys_is_left_to_the_strict_decoder() -> None:
    """Of a hundred keys that differ in their last byte each would be compared with all of the others, in each record."""
    asked: list[frozenset[str]] = []

    def noting(lines: Lines, numbers: Any, columns: Columns, shapes: Any) -> None:
        asked.extend(shapes)

    shapes = Shapes(noting)
    shapes.learn({"text": "a", "k" * (MAX_KEY_BYTES - 4): 1})
    shapes.learn({"text": "a", "k" * (MAX_KEY_BYTES - 3): 1})
    shapes.learn({"text": "a", "\u00e9" * (MAX_KEY_BYTES // 2 - 2): 1})
    shapes.learn({"text": "a", "\u00e9" * (MAX_KEY_BYTES // 2 - 1): 1})
    shapes.decode(Lines.of([SHAPE]), np.arange(1), PLAIN)
    assert [sorted(len(key.encode()) for key in keys) for keys in asked] == [[4, MAX_KEY_BYTES - 4]] * 2


def test_a_record_shorter_than_what_is_looked_at_at_once_is_taken() -> None:
    assert _taken([b'{"text":"a"}'], keys=frozenset({"text"})) == ([0], [])


def test_a_group_is_text_or_an_integer_or_nothing() -> None:
    groups = [b'"g\\n"', b'""', b"null", b"0", b"-12", b"9" * 18]
    raws = [b'{"text": "a", "meta": ' + group + b"}" for group in groups]
    assert _taken(raws, TEXT) == ([0, 1, 2, 3, 4, 5], [])
    rows = read(raws, TEXT, Shapes(Scan()))[0]
    assert rows["group"].to_pylist() == ["g\n", None, None, "0", "-12", "9" * 18]
    odd = [b"9" * 19, b"-0", b"1.5", b"1e3", b"true", b"[]", b"{}"]
    assert _taken([b'{"text": "a", "meta": ' + group + b"}" for group in odd], TEXT) == ([], [0, 1, 2, 3, 4, 5, 6])


def test_a_context_goes_behind_its_prompt() -> None:
    given = {"prompt": "p", "completion": "c", "group": 1}
    raws = [json.dumps({**given, "input": context}).encode() for context in ("more", "", None)]
    rows = read(raws, PAIR, Shapes(Scan()))[0]
    assert rows["prompt"].to_pylist() == ["p\n\nmore", "p", "p"]
    assert _taken(raws, PAIR, frozenset({*given, "input"}))[0] == [0, 1, 2]


def test_records_of_several_shapes_keep_their_order() -> None:
    shapes = [frozenset({"text"}), KEYS, frozenset({"text", "more"})]
    raws = [
        b'{"more": 1, "text": "a"}',
        SHAPE,
        b'{"text": "b"}',
        b'{"meta": 2, "text": "c"}',
        b'{"text": "d", "no": 1}',
    ]
    found = Scan()(Lines.of(raws), np.arange(10, 15), PLAIN, shapes)
    assert found is not None
    assert [(part.positions.tolist(), part.rows["text"].to_pylist()) for part in found.parts] == [
        ([2], ["b"]),
        ([1, 3], ["a", "c"]),
        ([0], ["a"]),
    ]
    assert found.parts[1].rows["line"].to_pylist() == [11, 13]
    assert (found.odd.tolist(), found.left.tolist()) == ([], [4])
