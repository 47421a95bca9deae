"""Records that are written alike are decoded in one go, all others one by one; nobody can tell which it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.json_rows import JsonRecords
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.reading.shapes import Shapes

PAIR = Columns(prompt="prompt", completion="completion", context="input", group="group")
TEXT = Columns(text="text", group="meta")
CHAT = Columns(messages="messages")
PLAIN = Columns(text="text")
TWO_IN_ONE = [b'{"text": "a", "meta": 1}', b'{"text": "a", "meta": 1}{"text": "b", "meta": 1}']
KEYS = ("prompt", "completion", "input", "group", "text", "messages", "meta", "pr\u00f6mpt")

text = st.text(max_size=8) | st.sampled_from(
    [
        "",
        " ",
        ":",
        '"',
        '":',
        '" :',
        "\\",
        '\\":',
        "{",
        '{"prompt": 1}',
        "a\tb\n",
        "\0",
        "\x1f\x7f",
        "\u2028",
        "\U0001f600",
    ]
)
scalar = st.none() | st.booleans() | st.integers() | st.floats() | text
value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | text, inner, max_size=3),
    max_leaves=6,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "Assistant", "king"]), "content": text}
) | st.fixed_dictionaries({"from": st.just("gpt"), "value": scalar})
chat = st.lists(message, max_size=3) | st.lists(message, max_size=2).map(json.dumps) | value
content = st.fixed_dictionaries(
    {},
    optional={
        "prompt": text | value,
        "completion": text | value,
        "input": text | value,
        "group": scalar | value,
        "text": text | value,
        "messages": chat,
        "meta": value,
        "pr\u00f6mpt": value,
    },
)
spelling = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(", ", ": "), (",", ":"), (" ,", " :"), (",\r", " \t\r :"), ("\t,  ", ":\r")]),
    }
)
ugly = [
    '"',
    "\\",
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "\\u0000",
    "\\ud800",
    "\\u0070",
    "\\u0022",
    "}{",
    "NaN",
    "1e999",
    "9" * 20,
    " ",
    "\t",
    "\0",
    "-",
    "0",
]


@st.composite
def line(draw: Any) -> bytes:
    """A record, as somebody would write it, or with something cut out or put in."""
    fields = draw(content)
    raw = json.dumps(fields, **draw(spelling)).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(raw)))
        cut = draw(st.sampled_from([0, 0, 1, 3]))
        put = draw(st.sampled_from(ugly).map(str.encode) | st.binary(max_size=2) | st.just(raw[1:-1]))
        raw = raw[:at] + put + raw[at + cut :]
    return raw.replace(b"\n", b" ")


class Never(Shapes):
    """Learns no shape, so that every record is decoded strictly."""

    def learn(self, fields: Any) -> None:
        pass


def read(raws: list[bytes], columns: Columns, known: Shapes) -> tuple[pa.Table, Any, Any, Any]:
    records = JsonRecords(Lines.of(raws), range(1, len(raws) + 1), 1.0, known)
    records.sample(100)
    parsed = records.parsed(columns)
    fields = [repr(parsed.fields_of(place)) for place in range(parsed.rows.num_rows)]
    return parsed.rows, parsed.unfit, parsed.rejections, fields


@given(raws=st.lists(line(), max_size=12), columns=st.sampled_from([PAIR, TEXT, CHAT]))
@example(raws=[b'{"text": "a"}', b'{"text" : "a", "text":"b"}', b'{"text": "c"}'], columns=TEXT)
@example(raws=[b'{"text": "a"}', b'{"text"\t \r:"a", "te\\u0078t": "b"}'], columns=TEXT)
@example(raws=[b'{"text": "a"}', b'{"text": "a"} "', b": 1"], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": 1}', b'{"text": "a", "meta": {"x": 1, "x": 2}}'], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": 1}', b'{"text": "a", "meta": ' + b"9" * 5000 + b"}"], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": 1}', b'{"text": "a", "meta": 100000000000000000000000}'], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": 1}', b'{"text": "a", "meta": true}', b'{"text": "", "meta": 1.0}'], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": []}', b'{"text": "a", "meta": ' + b"[" * 999 + b"]" * 999 + b"}"], columns=TEXT)
@example(raws=[b'{"text": "a", "meta": 1}', b'{"meta": 1, "meta": 2, "text": "\\u0022\\u0022"}'], columns=TEXT)
@example(
    raws=[b'{"text": "a"}', b'{"text": "\\u0022\\u0022", "te\\u0078t": "\\u0022\\u0022\\u0022\\u0022"}'], columns=TEXT
)
@example(raws=[b'{"text": "a"}', b'{"text": "a"}{"text": "b"}', b"{", b'{"text": "c"}'], columns=TEXT)
@example(
    raws=[b'{"text": "a", "meta": []}', b'{"text": "b", "meta": [{}', b'{}]}{"text": "c", "meta": 1}'], columns=TEXT
)
@example(raws=[b'{"text": "a"}'] * 20 + [b'{"text": "\xff"}', b'{"text": 1}'] + [b'{"text": "b"}\r'] * 20, columns=TEXT)
@example(raws=[*TWO_IN_ONE, b'{"text": "c", "meta": [1,', b"{}]}"], columns=PLAIN)
@example(raws=[*TWO_IN_ONE, b'{"text": "c", "meta": [{}', b",{}]}"], columns=PLAIN)
@settings(max_examples=100, deadline=None)
def test_both_ways_keep_and_refuse_the_same(raws: list[bytes], columns: Columns) -> None:
    assert read(raws, columns, Shapes()) == read(raws, columns, Never())


def _left(raws: list[bytes], columns: Columns, sampled: int = 1) -> list[int]:
    """The positions of what is decoded one by one, once the first record is known."""
    known = Shapes()
    JsonRecords(Lines.of(raws[:sampled]), range(sampled), 0.0, known).sample(sampled)
    return known.decode(Lines.of(raws), np.arange(len(raws)), columns)[1].tolist()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"text": "b", "meta": {"a": {"b": [1.5, null]}}}',
        b'{"meta":[],"text":"b"}',
        b' {"text" : "say \\"a\\": \\\\", "meta" : "\\u00e9\\ud83d\\ude00" }\r',
        '{"text": "\u00e9\u4e2d", "meta": 7}'.encode(),
    ],
)
def test_records_that_are_fine_are_decoded_in_one_go(raw: bytes) -> None:
    assert _left([b'{"text": "a", "meta": 1}', raw, raw], Columns(text="text")) == []


@pytest.mark.parametrize(
    "raw",
    [
        b'{"text": "a", "text": "b"}',
        b'{"text": "a"',
        b'{"text": 1}',
        b'{"text": "a", "more": 1}',
        b'{"text": "\\u0000"}',
        b'{"text": "' + b"a" * 1_000_000 + b'"}',
        b"",
    ],
)
def test_what_needs_a_closer_look_is_decoded_alone(raw: bytes) -> None:
    assert _left([b'{"text": "a"}', raw, b'{"text": "b"}'], TEXT) == [1]


def test_up_to_eight_shapes_are_learned() -> None:
    raws = [json.dumps({"text": "a", f"x{number}": 1}).encode() for number in range(10)]
    assert _left(raws, TEXT, sampled=10) == [8, 9]
