"""Functions, classes, or whole modules of Python source; whatever the unit, the pieces of a file stay in one split."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from datasets.pipeline.reading import source_parser
from tests.datasets.pipelines import Version, process, refused, zipped

SPLITS = ("train", "validation", "test")
MODULE = '''\
"""About the module."""

import os


class Box:
    """A box."""

    def __init__(self, size):
        """Make it."""
        self.size = size

    class Lid:
        """Within."""

        open = True


def free(x):
    """Doc."""
    return x
'''


def pieces(source: str) -> list[tuple[str, str]]:
    return [
        (row["prompt"], row["completion"]) for row in source_parser.parse(dedent(source).encode(), "CLASSES")["rows"]
    ]


@pytest.mark.parametrize(
    ("source", "prompt", "completion"),
    [
        (
            '@frozen\nclass A(B, metaclass=M):\n    """Doc."""\n\n    x: int = 1\n',
            '@frozen\nclass A(B, metaclass=M):\n    """Doc."""\n',
            "\n    x: int = 1\n",
        ),
        ("class A:\n    def f(self): ...\n", "class A:\n", "    def f(self): ...\n"),
        ("class A:\n    # why\n    x = 1\n    y = 2\n", "class A:\n", "    # why\n    x = 1\n    y = 2\n"),
        ("class A: x = 1; y = 2\n", "class A: ", "x = 1; y = 2\n"),
        (
            'if True:\n    class A:\n        """Doc."""\n        x = """a\n        b"""\n',
            'class A:\n    """Doc."""\n',
            '    x = """a\n        b"""\n',
        ),
        (
            'try:\n    pass\nexcept E:\n    class A:\n        """Doc."""\n        class B:\n            """In."""\n            x = 1\n',
            'class A:\n    """Doc."""\n',
            '    class B:\n        """In."""\n        x = 1\n',
        ),
    ],
)
def test_a_class_is_cut_before_its_body(source: str, prompt: str, completion: str) -> None:
    assert pieces(source) == [(prompt, completion)]
    ast.parse(prompt + completion)


@pytest.mark.parametrize(
    "source",
    [
        "class A: pass\n",
        "class A:\n    x = 1\n",
        'class A:\n    """Doc."""\n',
        'class A(Exception):\n    """Doc."""\n    pass\n',
        "class A: ...\n",
    ],
)
def test_a_class_with_too_little_in_it_is_counted_and_left_out(source: str) -> None:
    assert source_parser.parse(source.encode(), "CLASSES") == {"rows": [], "small": 1}


def test_classes_in_functions_belong_to_those() -> None:
    assert source_parser.parse(b"def f():\n    class A:\n        x = 1\n        y = 2\n", "CLASSES") == {
        "rows": [],
        "small": 0,
    }


def test_a_module_is_its_text_unless_it_says_nothing() -> None:
    text = '"""Doc."""\r\nx = 1'
    assert source_parser.parse(text.encode(), "MODULES") == {
        "rows": [{"text": '"""Doc."""\nx = 1', "line": 1}],
        "small": 0,
    }
    for empty in ("", '"""Doc."""\n', "# nothing\n", "pass\n"):
        assert source_parser.parse(empty.encode(), "MODULES") == {"rows": [], "small": 1}


def row_of(version: Version) -> dict[str, Any]:
    [row] = version.rows
    return row


def test_the_recipe_chooses_what_becomes_a_row(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"p/a.py": MODULE, "p/b.py": "x = (\n", "p/c.py": '"""Nothing."""\n'}
    functions = process(tmp_path / "functions", zipped(members))
    assert [(row["prompt"], row["line"]) for row in functions.rows] == [
        ('class Box:\n    def __init__(self, size):\n        """Make it."""\n', 9),
        ('def free(x):\n    """Doc."""\n', 19),
    ]
    classes = process(tmp_path / "classes", zipped(members), python_units="CLASSES")
    row = row_of(classes)
    assert (row["prompt"], row["line"]) == ('class Box:\n    """A box."""\n', 6)
    assert row["completion"].startswith("\n    def __init__") and row["completion"].endswith("open = True\n")
    modules = process(tmp_path / "modules", zipped(members), python_units="MODULES")
    row = row_of(modules)
    assert (row["text"], row["prompt"], row["line"]) == (MODULE, None, 1)
    assert modules.result["columns"] == {"text": "text", "group": "group"}
    for version in (functions, classes, modules):
        assert {(row["source"], row["group"]) for row in version.rows} == {("p/a.py", "p/a.py")}
        assert [(one["source"], one["line"], one["reason"]) for one in version.rejections] == [
            ("p/b.py", 1, "SYNTAX_ERROR")
        ]
    assert functions.result["skipped"] == {"NOT_SOURCE": 0, "FUNCTION_TOO_SMALL": 0}
    assert classes.result["skipped"] == {"NOT_SOURCE": 0, "CLASS_TOO_SMALL": 0}
    assert modules.result["skipped"] == {"NOT_SOURCE": 0, "MODULE_TOO_SMALL": 1}
    assert modules.manifest["recipe"]["python_units"] == "MODULES"


@pytest.mark.parametrize(("units", "rows"), [("FUNCTIONS", 4), ("CLASSES", 3), ("MODULES", 1)])
def test_a_split_never_separates_the_pieces_of_a_file(tmp_path: Path, units: str, rows: int) -> None:
    members: dict[str, bytes | str] = {
        f"p/m{number}.py": "".join(
            f'class A{number}_{place}:\n    """Doc."""\n\n    def f(self):\n        x = {number * place}\n        return x\n\n'
            for place in range(3)
        )
        + f"def free(x):\n    y = x + {number}\n    return y\n"
        for number in range(60)
    }
    shares = {"train": 0.4, "validation": 0.3, "test": 0.3}
    version = process(tmp_path, zipped(members), python_units=units, split=shares, near_dedup=None, exact_dedup=False)
    assert version.result["rows_kept"] == 60 * rows
    sources = [{row["source"] for row in version.split(name)} for name in SPLITS]
    assert [len(one) > 5 for one in sources] == [True] * 3
    assert sum(map(len, sources)) == len(set.union(*sources)) == 60
    assert all(row["group"] == row["source"] for row in version.rows)


def test_a_file_without_a_name_is_one_group_all_the_same(tmp_path: Path) -> None:
    version = process(tmp_path, MODULE, "")
    assert [row["group"] for row in version.rows] == ["source", "source"]


@pytest.mark.parametrize(("units", "says"), [("CLASSES", "no class with"), ("MODULES", "no module with")])
def test_source_without_such_units_says_so(tmp_path: Path, units: str, says: str) -> None:
    source = '"""Nothing but a docstring."""\n# import os\n'
    error = refused(tmp_path, source, "m.py", python_units=units)
    assert error.code == "NO_USABLE_ROWS"
    assert says in error.message
