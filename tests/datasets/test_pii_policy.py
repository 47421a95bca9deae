"""What becomes of rows, what is counted, and what a preview shows."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.pipeline.pii import Action, Kind, Policy, find, mask, previews, scrub
from tests.datasets.test_pii_masking import MANY, TEXTS

KEY = b"0123456789abcdef"
COLUMNS = {
    "prompt": pa.array(["ask joe@mail.ru", "nothing", None, "password='hunter2!'"]),
    "completion": pa.chunked_array([["joe@mail.ru says 4111 1111 1111 1111"], ["no", "sue@mail.ru", "x"]]),
}
COUNTS = {Kind.EMAIL: 3, Kind.PAYMENT_CARD: 1, Kind.PASSWORD: 1}


def texts(columns: dict[str, pa.Array | pa.ChunkedArray]) -> dict[str, list[str | None]]:
    return {name: column.to_pylist() for name, column in columns.items()}


def test_each_column_is_masked_alike() -> None:
    result = scrub(COLUMNS, Policy(), KEY)
    after = texts(result.columns)
    joe = (after["prompt"][0] or "").removeprefix("ask ")
    assert joe.startswith("EMAIL_")
    assert (after["completion"][0] or "").startswith(f"{joe} says PAYMENT_CARD_")
    assert after["prompt"][1:3] == ["nothing", None]
    assert result.counts == COUNTS
    assert result.dropped.to_pylist() == [None] * 4
    assert result.previews == []


@pytest.mark.parametrize(
    ("policy", "dropped"),
    [
        (Policy(pii=Action.DROP), ["PAYMENT_CARD", None, "EMAIL", None]),
        (Policy(secrets=Action.DROP), [None, None, None, "PASSWORD"]),
        (Policy(Action.DROP, Action.DROP), ["PAYMENT_CARD", None, "EMAIL", "PASSWORD"]),
        (Policy(Action.KEEP, Action.KEEP), [None] * 4),
    ],
)
def test_a_row_is_left_out_for_what_is_to_be_dropped(policy: Policy, dropped: list[str | None]) -> None:
    result = scrub(COLUMNS, policy, KEY)
    assert result.dropped.to_pylist() == dropped
    assert result.counts == COUNTS


def test_what_is_kept_stays_as_it_was() -> None:
    assert texts(scrub(COLUMNS, Policy(Action.KEEP, Action.KEEP), KEY).columns) == texts(COLUMNS)
    only_secrets = texts(scrub(COLUMNS, Policy(pii=Action.KEEP), KEY).columns)
    assert only_secrets["completion"] == COLUMNS["completion"].to_pylist()
    assert (only_secrets["prompt"][3] or "").startswith("password='PASSWORD_")


def test_what_is_kept_hides_nothing_that_is_to_be_masked() -> None:
    rows = {"text": pa.array(["password='joe@mail.ru'"])}
    assert scrub(rows, Policy(), KEY).counts == {Kind.PASSWORD: 1}
    assert (
        texts(scrub(rows, Policy(secrets=Action.KEEP), KEY).columns)["text"][0]
        == mask(rows["text"], find(rows["text"], frozenset({Kind.EMAIL})), KEY).to_pylist()[0]
    )
    assert texts(scrub(rows, Policy(Action.KEEP, Action.KEEP), KEY).columns) == texts(rows)


def test_the_same_bytes_and_key_give_the_same_bytes() -> None:
    first, second = (texts(scrub(COLUMNS, Policy(), KEY).columns) for _ in range(2))
    assert first == second
    assert first != texts(scrub(COLUMNS, Policy(), KEY[::-1]).columns)


def test_no_columns_and_no_rows() -> None:
    assert scrub({}, Policy(), KEY).dropped.to_pylist() == []
    empty = scrub({"text": pa.array([], pa.string())}, Policy(), KEY)
    assert (empty.columns["text"].to_pylist(), empty.counts) == ([], {})


def test_a_preview_is_a_few_places_without_what_was_there() -> None:
    rows = pa.array(
        ["x" * 100 + " joe@mail.ru, sue@mail.ru " + "y" * 100, "4111 1111 1111 1111", "password='hunter2!'"]
    )
    found = find(rows)
    shown = previews(rows, found, KEY, limit=3, around=10)
    assert [(each.row, each.kind) for each in shown] == [(0, Kind.EMAIL), (0, Kind.EMAIL), (1, Kind.PAYMENT_CARD)]
    words = mask(rows, found, KEY).to_pylist()[0].split()
    assert shown[0].excerpt == f"{'x' * 9} {words[1]} {words[2]}"[: 10 + len(words[1]) - 1 + 10]
    assert not any(value in each.excerpt for each in shown for value in ("joe@", "sue@", "4111"))


def test_a_preview_passes_over_a_value_that_stands_there_again_unfound() -> None:
    rows = pa.array(["password='hunter2!' and hunter2! again", "joe@mail.ru"])
    assert len(find(rows)) == 2
    assert [each.row for each in previews(rows, find(rows), KEY, limit=5)] == [1]


def test_previews_of_a_batch_are_limited_in_all() -> None:
    result = scrub(COLUMNS, Policy(Action.KEEP, Action.KEEP), KEY, preview_limit=2)
    assert [each.kind for each in result.previews] == [Kind.EMAIL, Kind.PASSWORD]
    assert "joe@mail.ru" not in json.dumps([each.excerpt for each in result.previews])


POLICIES = st.builds(Policy, st.sampled_from(Action), st.sampled_from(Action))


@given(st.lists(st.tuples(st.one_of(st.none(), TEXTS), st.one_of(st.none(), TEXTS)), max_size=6), POLICIES)
@MANY
def test_columns_together_are_what_each_is_by_itself(rows: list[tuple[str | None, str | None]], policy: Policy) -> None:
    """Though they are searched at once, and rows without a finding are not searched again for the kinds to be masked."""
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(("a", "b"))}
    result = scrub(columns, policy, KEY)
    for name, column in columns.items():
        assert list(result.found[name]) == list(find(column))
        assert result.columns[name].equals(mask(column, find(column, policy.kinds(Action.MASK)), KEY))
    before, after = (list(zip(*texts(each).values(), strict=True)) for each in (columns, result.columns))
    assert result.is_masked.to_pylist() == [one != other for one, other in zip(before, after, strict=True)]
