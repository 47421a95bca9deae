"""Masked text: parsed as before, found nothing in it, the same for the same key, and of no use for guessing."""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.pii import Finding, Findings, Kind, find, mask
from datasets.pipeline.pii.placeholders import Placeholders
from tests.datasets.test_pii_kinds import FOUND, parts

KEY = b"0123456789abcdef"
VALUES = sorted({value for texts in FOUND.values() for text in texts for value in parts(text)[1]})
PIECES = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from([parts(text)[0] for texts in FOUND.values() for text in texts]),
    st.sampled_from(
        [
            "@",
            ".",
            "+",
            "-",
            " ",
            "\n",
            "\\n",
            "\\",
            "(",
            ":",
            "/",
            '"',
            "'",
            "é",
            "password=",
            "phone ",
            "://u:",
            "1",
            "_",
        ]
    ),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
MANY = settings(max_examples=60, deadline=None)


def masked(*texts: str | None, key: bytes = KEY) -> list[str | None]:
    rows = pa.array(texts, pa.string())
    return mask(rows, find(rows), key).to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to joe@mail.ru, JOE@mail.ru", "to EMAIL_{0}, EMAIL_{0}"),
        ("x = 4111111111111111", "x = {1}"),
        ('x = "4111111111111111"', 'x = "PAYMENT_CARD_{2}"'),
        ("4111 1111 1111 1111", "PAYMENT_CARD_{2}"),
        ("call +49 30 901820", "call +PHONE_{3}"),
        ("call (415) 555-2671", "call (PHONE_{4})"),
        ("x = +14155552671", "x = +{5}"),
        ("postgres://a:q9w8e7r6@h/x", "postgres://a:URL_PASSWORD_{6}@h/x"),
        ("nothing", "nothing"),
        (None, None),
    ],
)
def test_what_stands_in_its_place(text: str | None, expected: str | None) -> None:
    of = Placeholders(KEY)
    tags = (
        of.word(Kind.EMAIL, "joe@mail.ru")[6:],
        of.number(Kind.PAYMENT_CARD, "4111111111111111"),
        of.word(Kind.PAYMENT_CARD, "4111111111111111")[13:],
        of.word(Kind.PHONE, "+4930901820")[6:],
        of.word(Kind.PHONE, "4155552671")[6:],
        of.number(Kind.PHONE, "14155552671"),
        of.word(Kind.URL_PASSWORD, "q9w8e7r6")[13:],
    )
    assert masked(text) == [None if expected is None else expected.format(*tags)]


def test_a_placeholder_depends_on_kind_value_and_key() -> None:
    of, other = Placeholders(KEY), Placeholders(KEY[::-1])
    assert re.fullmatch("EMAIL_[a-p]{12}", of.word(Kind.EMAIL, "joe@mail.ru"))
    assert re.fullmatch(r"99932\d{10}", of.number(Kind.PAYMENT_CARD, "4111111111111111"))
    assert of.word(Kind.EMAIL, "joe@mail.ru") == Placeholders(KEY).word(Kind.EMAIL, "Joe@Mail.RU")
    assert of.word(Kind.SSN, "536-90-4399") == of.word(Kind.SSN, "536904399")
    assert of.word(Kind.PASSWORD, "a-b") != of.word(Kind.PASSWORD, "ab")
    words = [of.word(Kind.BSN, "111222333"), of.word(Kind.SSN, "111222333"), other.word(Kind.BSN, "111222333")]
    assert len({word[-12:] for word in words}) == 3


@pytest.mark.parametrize("key", [b"", b"fifteen bytes.."])
def test_a_key_that_can_be_guessed_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        mask(pa.array(["x"]), Findings.of([]), key)


def test_types_and_chunks_stay() -> None:
    rows = ["joe@mail.ru", None, "x", "sue@mail.ru"]
    for texts in (pa.array(rows), pa.array(rows, pa.large_string()), pa.chunked_array([rows[:1], rows[1:]])):
        result = mask(texts, find(texts), KEY)
        assert result.type == texts.type
        assert len(result) == 4
        assert result.to_pylist() == masked(*rows)
    assert mask(pa.array(rows), Findings.of([]), KEY).to_pylist() == rows


def test_a_finding_of_somebody_else_can_be_masked() -> None:
    texts = pa.array(["é Ada"])
    [text] = mask(texts, Findings.of([Finding(0, 2, 5, Kind.PERSON_NAME)]), KEY).to_pylist()
    assert text == "é " + Placeholders(KEY).word(Kind.PERSON_NAME, "Ada")


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=6))
@MANY
def test_spans_are_inside_their_rows_and_apart(rows: list[str | None]) -> None:
    last = (-1, 0)
    for finding in find(pa.array(rows, pa.string())):
        text = rows[finding.row]
        assert text is not None
        assert 0 <= finding.start < finding.end <= len(text)
        assert (finding.row, finding.start) >= last
        assert "\n" not in text[finding.start : finding.end]
        last = (finding.row, finding.end)


@given(st.lists(TEXTS, max_size=5))
@example(["(415) 555-2671@020 7946 0857"])  # the first one's placeholder says PHONE
@example(["(415) 555-2671(415) 555-2671"])
@example(  # a key that is cut off by the bracket of a number
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\naB3dE5gH7jK9mN2pQ4sT6vW8xY0zC1fG3hJ5kL7nP9rS2tU4wX6yZ8bD0eF2gH4j"
        "key = 'AKIAZ7VRSQJKD2P3QMX4'+1 (415) 555-2671+33 1 42 68 53 00+14155552671+1 (415) 555-2671"
    ]
)
@MANY
def test_in_masked_text_nothing_is_found(rows: list[str]) -> None:
    once = masked(*rows)
    assert [(once[finding.row], finding) for finding in find(pa.array(once, pa.string()))] == []


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=8), st.data())
@MANY
def test_rows_do_not_depend_on_their_neighbours(rows: list[str | None], data: st.DataObject) -> None:
    together = masked(*rows)
    assert together == [masked(row)[0] for row in rows]
    cut = data.draw(st.integers(0, len(rows)))
    assert together == masked(*rows[:cut]) + masked(*rows[cut:])
    assert masked(*rows, key=KEY) == together


NUMBERS = [value for value in VALUES if re.fullmatch(r"\+?[0-9]+", value)] + ["4111111111111111", "378282246310005"]

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXTS, st.sampled_from(VALUES),
        st.sampled_from(NUMBERS).map(int), st.integers(10**6, 10**19), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXTS, st.just("password")), inner, max_size=4)),
    max_leaves=10,
)  # fmt: skip


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(each) for each in value.values()]
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
@MANY
def test_json_is_still_json_of_the_same_shape(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    [after] = masked(text)
    assert after is not None
    pairs = {"object_pairs_hook": lambda pairs: [each for _, each in pairs]}
    before = json.loads(text, **pairs)
    assert shape(json.loads(after, **pairs)) == shape(before)


EXPRESSIONS = [
    value
    for value in VALUES
    if re.fullmatch(
        r"[0-9]{3}-[1-9][0-9]-[1-9][0-9]{3}|[1-9][0-9]*-[1-9][0-9-]*|[a-z]+@[a-z]+\.[a-z]+|[A-Z]+[A-Z0-9]+", value
    )
]
CODE = st.sampled_from(
    [
        "x = {number}",
        "def f(a={number}, b=-{number}): return a + {number}",
        "x = [{number}, {number}]; y = {{{number}: '{value}'}}",
        "phone = {number}",
        "card=({number})",
        "password = '{value}'",
        "# call {value} or {number}",
        "s = '''\n{value}\n'''",
        "s = \"\\n{value}\\t\"",
        "s = f'{{x}} {value}'",
        "s = ('{value}' '{value}')",
        "b = b'{ascii}'",
        "x = {expression}",
        "f({expression}, k={expression})",
        "x = y + {expression} - z",
        "print({number} if x else {number})",
        "class {name}: pass",
        "def {name}(): return {name}",
    ]
)  # fmt: skip


def parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


@given(st.lists(CODE, min_size=1, max_size=5), st.data())
@MANY
def test_python_is_still_python(lines: list[str], data: st.DataObject) -> None:
    quoted = [value for value in VALUES if not set(value) & set("'\\{}\n")]
    names = [value for value in VALUES if value.isidentifier()]
    source = "\n".join(
        line.format(
            number=data.draw(st.sampled_from(NUMBERS)),
            value=data.draw(st.sampled_from(quoted)),
            ascii=data.draw(st.sampled_from([value for value in quoted if value.isascii()])),
            expression=data.draw(st.sampled_from(EXPRESSIONS)),
            name=data.draw(st.sampled_from(names)),
        )
        for line in lines
    )
    assume(parses(source))  # some values are no expression: 030 has a leading zero
    [after] = masked(source)
    ast.parse(after or "")


def test_the_standard_library_is_still_python() -> None:
    sources = [path.read_text("utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::3]]
    values = [VALUES[number % len(VALUES)] for number in range(len(sources))]
    planted = [f"{source}\n# {value}\nPLANTED = {value!r}\n" for source, value in zip(sources, values, strict=True)]
    for value, after in zip(values, masked(*planted), strict=True):
        ast.parse(after or "")
        assert (value in BY_ITSELF) != (value in (after or "")), value


def test_a_chat_is_still_a_chat() -> None:
    chat = [{"role": "user", "content": f'say "{value}"\n{value}'} for value in VALUES]
    [text] = masked(json.dumps(chat, ensure_ascii=False, separators=(",", ":")))
    after = json.loads(text or "")
    assert [sorted(message) for message in after] == [["content", "role"]] * len(VALUES)
    left = {value for value, message in zip(VALUES, after, strict=True) if value in message["content"]}
    assert left == set(VALUES) - BY_ITSELF


# Others need the word beside them, or the frame around them.
BY_ITSELF = {value for value in VALUES if find(pa.array([f'say "{value}" {value}']))}
