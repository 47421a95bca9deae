from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.arrays import table
from datasets.pipeline.clean import Clean, _suspects_among_texts, clean, clean_chat
from datasets.pipeline.reading.scan.suspects import suspects
from tests.datasets.pipelines import lines, process


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("def f():\n    return 1\n", "def f():\n    return 1\n"),
        ("a\r\nb\rc\n\r", "a\nb\nc\n\n"),
        ("a \t\n  b\n   \nc", "a\n  b\n\nc"),
        ("def f():\n    ", "def f():\n    "),  # where a prompt ends, its completion goes on
        ("if x:\n\treturn 1\n", "if x:\n\treturn 1\n"),
        ("\ufeffa\ufeffb", "ab"),
        ("a\0b\x1b[31m\x7f\x85c\x0cd", "ab[31mcd"),
        ("cafe\u0301 \u212b \u1100\u1161", "caf\u00e9 \u00c5 \uac00"),
        ("\u00e9\u00a0\u4e2d\U0001f600", "\u00e9\u00a0\u4e2d\U0001f600"),
        ("x = 'e\\u0301'", "x = 'e\\u0301'"),  # an escape stays what it is
        ("a \x00\n", "a\n"),
        ("", ""),
    ],
)
def test_what_cleaning_does(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


awkward = st.text(
    st.sampled_from('a \t\n\r\0\x0b\x7f\x85\xa0\xe9e\u0301\u0300\u1161\u1100\ufeff\u212b\u4e2d\U0001f600\\nrt"')
    | st.characters(codec="utf-8"),
    max_size=12,
)


@given(texts=st.lists(awkward, min_size=1, max_size=8))
@example(texts=["a ", "\nb"])
@example(texts=["\x7f"])
@example(texts=["a", "e\u0301"])
@example(texts=["\x85", "a"])
@example(texts=["\u1100\u1161"])
@example(texts=["\ufeff"])
@example(texts=["\t\n"])
@example(texts=["a" * 31 + " \n", "a" * 32 + "\x7f", "a" * 62 + "\x85"])
@pytest.mark.parametrize("is_large", [False, True])
@settings(max_examples=200, deadline=None)
def test_a_batch_is_cleaned_like_each_of_its_texts(is_large: bool, texts: list[str]) -> None:
    rows = table({"text": texts, "line": list(range(len(texts)))}, len(texts))
    outcome = Clean(is_source=False, is_large=is_large).begin()(rows)
    cleaned = [clean(text) for text in texts]
    assert outcome.kept["text"].to_pylist() == cleaned
    assert outcome.changed == sum(text != one for text, one in zip(texts, cleaned, strict=True))
    assert [clean(one) for one in cleaned] == cleaned
    others = ["text", "changed_by"]
    assert outcome.kept.drop_columns(others) == rows.drop_columns(others)
    assert outcome.kept["changed_by"].to_pylist() == [None if clean(text) == text else "clean" for text in texts]


def test_only_what_may_be_unclean_is_looked_at_by_itself() -> None:
    texts = ["a\tb\n c", "a \n", "caf\u00e9\u00a0", "\x85", "", "\u4e2d", "\r", "a" * 40 + "\u0301"]
    column = pa.array(["", *texts], pa.string())[1:]
    assert suspects(column) == _suspects_among_texts(column) == [1, 3, 5, 6, 7]


@given(texts=st.lists(awkward, min_size=1, max_size=4))
@example(texts=["a", "e\u0301"])
@example(texts=[" \n"])
@example(texts=["\t\n"])
@example(texts=["\r"])
@example(texts=["\x0c"])
@example(texts=["\x01"])
@settings(max_examples=100, deadline=None)
def test_so_is_a_batch_of_chats(texts: list[str]) -> None:
    chats = [
        json.dumps([{"role": "assistant", "content": text}], ensure_ascii=False, separators=(",", ":"))
        for text in texts
    ]
    rows = table({"messages": chats, "line": list(range(len(chats)))}, len(chats))
    outcome = Clean(is_source=False).begin()(rows)
    assert outcome.kept["messages"].to_pylist() == [clean_chat(chat) for chat in chats]
    assert [json.loads(chat)[0]["content"] for chat in outcome.kept["messages"].to_pylist()] == list(map(clean, texts))


def test_what_is_clean_is_passed_on_as_it_is() -> None:
    rows = table({"prompt": pa.array(["a\n"]), "completion": pa.array(["\u00e9\n"]), "line": [1]}, 1)
    assert Clean(is_source=False).begin()(rows).kept is rows


def test_rows_are_counted_and_shown(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p\r\n", "completion": "c \n"},
        {"prompt": "p", "completion": "c"},
        {"prompt": "x" * 30 + "\ufeff", "completion": "c"},
    ]
    version = process(tmp_path, lines(*rows, "{"), "rows.jsonl", near_dedup=None)
    step = version.manifest["steps"][1]
    assert (step["name"], step["rows_in"], step["rows_kept"], step["rows_changed"]) == ("clean", 3, 3, 2)
    assert step["examples"] == [
        {"line": 1, "source": None, "before": "p\u240d", "after": "p"},
        {"line": 3, "source": None, "before": "x" * 20 + "\ufeff", "after": "x" * 20},
    ]
    assert [(row["prompt"], row["completion"]) for row in version.rows] == [("p\n", "c\n"), ("p", "c"), ("x" * 30, "c")]


def test_rows_that_become_equal_are_duplicates_and_lengths_are_of_what_is_kept(tmp_path: Path) -> None:
    rows = [{"text": "a\nb"}, {"text": "a \r\nb"}, {"text": "\ufeff\x01"}, {"text": "abcd\ufeff"}, {"text": "abcde"}]
    version = process(tmp_path, lines(*rows), max_characters=4)
    assert version.why == [(2, "DUPLICATE"), (3, "TOO_SHORT"), (5, "TOO_LONG")]
    assert version.rejections[1]["excerpt"] == '{"text": "\ufeff\\u0001"}'


def test_a_chat_whose_answer_was_invisible_has_none(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\x01\x02"}]
    good = {"messages": [{"role": "assistant", "content": "a"}]}
    assert process(tmp_path, lines(good, {"messages": chat})).why == [(2, "NO_ANSWER")]


def test_source_code_is_kept_to_the_byte(tmp_path: Path) -> None:
    source = 'def f(x):\n    """Doc."""\n    return """a \n\te\u0301"""\n'
    version = process(tmp_path, source, "f.py")
    assert version.rows[0]["completion"] == '    return """a \n\te\u0301"""\n'
    assert version.result["steps"][1]["rows_changed"] == 0
