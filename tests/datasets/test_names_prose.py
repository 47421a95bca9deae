"""What a model of language is shown: what people wrote for people, and of code its comments alone."""

from __future__ import annotations

import json
import time

import pytest

from datasets.pipeline.names.pieces import Piece, groups, pieces
from datasets.pipeline.names.prose import prose

CHAT = [
    {"role": "user", "content": 'I am Ada.\nI said "hi" to\tGrace'},
    {"role": "assistant", "content": "def greet(x):\n    # as Bob does\n    return Carol\n"},
]


CODE = 'def f(x):\n    """By Ada.\n    so\n    """\n    y = "a\\"# Bob"  # and Grace\n    return y\n'


def read(text: str) -> list[str]:
    """The lines that are read, without what is blank."""
    shown = prose(text)
    assert len(shown) == len(text)
    return [" ".join(line.split()) for line in shown.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "Written by Ada Lovelace.\nReturn the value to her.",
            ["Written by Ada Lovelace.", "Return the value to her."],
        ),
        ("From: Ada Lovelace\nTo: Grace", ["From: Ada Lovelace", "To: Grace"]),
        ("Ask Ada about `Random` and find(Bob, 1), or see https://x.org/Ada.", ["Ask Ada about and , or see"]),
        ("<p>Written by <b>Ada</b> Lovelace</p>", ["Written by Ada Lovelace"]),
        ("Ada says:\n```python\nimport Random\n# of Grace\n```\nBob too.", ["Ada says:", "of Grace", "Bob too."]),
        ("from Random import Ada\nx = Ada()\nreturn Ada", []),
        ("import Random", []),
        ("total = Ada.find(1)\nfor each in Ada:\n    print(each)\n", []),
        (
            'def f(x):\n    """By Ada.\n\n    >>> f(Random)\n    """\n    y = "Bob"  # and Grace\n    return y\n',
            ["By Ada.", "and Grace"],
        ),
        (
            '/* By Ada\n   and Bob */\nint main(void) {\n  puts("// Random"); // Grace\n}\n',
            ["By Ada", "and Bob", "Grace"],
        ),
        ("-- by Ada\nSELECT name FROM Grace;", ["by Ada"]),
        (json.dumps(CHAT), ["user I am Ada.", 'I said " hi" to Grace assistant as Bob does']),
        (json.dumps([CODE]), ["By Ada.", "so", "and Grace"]),
        ('{"author": "Ada", "Grace": [1, "Bob"]}', ["Ada Bob"]),
        ("a\\nAda and \\u0041da", ["a Ada and da"]),
        ("by EMAIL_abcdefghijkl and PERSON_NAME_abcdefghijkl", ["by and"]),
        ("", []),
    ],
)
def test_prose_is_read_and_code_is_not(text: str, lines: list[str]) -> None:
    assert read(text) == lines


def test_a_place_in_prose_is_the_same_in_the_text() -> None:
    for text in (json.dumps(CHAT, ensure_ascii=False), "x = 1\n# by Zoë Ångström\ny = 2\n"):
        shown = prose(text)
        assert {(one, two) for one, two in zip(text, shown, strict=True) if one != two and two not in ' \n"'} == set()


@pytest.mark.parametrize("unit", ['"', '\\"', "`", "/*", "a", "a.", "a(", "a,", "# ", "<a", '"""', "\n", "; ", "[", "a = b ", "--", "let ", "{", ": "])  # fmt: skip
def test_time_is_linear_whatever_the_text_is(unit: str) -> None:
    """Of a hundred thousand, as of a million characters: a text of the largest size is read in a second or two."""
    seconds = []
    for times in (100_000, 400_000):
        text = (unit * times)[:times]
        begun = time.process_time()
        prose(text)
        seconds.append(time.process_time() - begun)
    assert seconds[1] < max(10 * seconds[0], 0.5) and seconds[1] < 5


def test_long_texts_come_in_pieces_that_cut_no_name_in_two() -> None:
    text = "  One two.\n\nThree four. Five six\nseven eight"
    found = list(pieces([text, "   ", "x" * 25], most=12))
    assert [piece.said for piece in found if piece.text == 0] == [
        "One two.\n\n",
        "Three four. ",
        "Five six\n",
        "seven eight",
    ]
    assert all(
        len(piece.said) <= 12 and text[piece.start :].startswith(piece.said) for piece in found if not piece.text
    )
    assert [piece for piece in found if piece.text] == [
        Piece(2, 0, "x" * 12),
        Piece(2, 12, "x" * 12),
        Piece(2, 24, "x"),
    ]


def test_pieces_are_shown_in_groups_of_so_many_characters() -> None:
    found = [Piece(number, 0, "x" * size) for number, size in enumerate((3, 3, 9, 1, 1))]
    assert [[piece.text for piece in group] for group in groups(found, most=6)] == [[0, 1], [2], [3, 4]]
    assert list(groups([])) == []
