"""Python source becomes prompts and completions, and is never executed."""

from __future__ import annotations

import ast
import sysconfig
import time
from pathlib import Path
from textwrap import dedent

import pytest

from datasets.pipeline.reading import python_source, source_parser
from datasets.pipeline.reading.python_source import Parser
from tests.datasets.pipelines import process, refused, zipped

GOOD = 'def good(x):\n    """Doc."""\n    return x\n'


def pieces(source: str) -> list[tuple[str, str]]:
    return [(row["prompt"], row["completion"]) for row in source_parser.parse(dedent(source).encode())["rows"]]


@pytest.mark.parametrize(
    ("source", "prompt", "completion"),
    [
        ('def f(x):\n    """Doc."""\n    return x\n', 'def f(x):\n    """Doc."""\n', "    return x\n"),
        ("def f(x):\n    y = x\n    return y", "def f(x):\n", "    y = x\n    return y\n"),
        (
            '@cache\n@retry(\n    times=3,\n)\nasync def f(\n    x,  # the x\n) -> int:  # noqa\n    "Doc."\n\n    # why\n    return x\n',
            '@cache\n@retry(\n    times=3,\n)\nasync def f(\n    x,  # the x\n) -> int:  # noqa\n    "Doc."\n',
            "\n    # why\n    return x\n",
        ),
        (
            "def f(\n    x,\n):  # noqa\n\n    # why\n    y = x\n    return y\n",
            "def f(\n    x,\n):  # noqa\n",
            "\n    # why\n    y = x\n    return y\n",
        ),
        ("def f(): x = 1; return x\n", "def f(): ", "x = 1; return x\n"),
        ("def f(): 'Doc ä'; return 1\n", "def f(): 'Doc ä'; ", "return 1\n"),
        (
            'class A(B):\n    x = 1\n\n    @property\n    def f(self):\n        """Doc."""\n        return self\n',
            'class A:\n    @property\n    def f(self):\n        """Doc."""\n',
            "        return self\n",
        ),
        (
            'class A:\n  class B:\n    @classmethod\n    def f(cls):\n      """Doc."""\n      return cls\n',
            'class A:\n  class B:\n    @classmethod\n    def f(cls):\n      """Doc."""\n',
            "      return cls\n",
        ),
        (
            'if True:\n    def f():\n        """Doc.\n\n        More.\n        """\n        x = """a\n        b"""\n        return x\n',
            'def f():\n    """Doc.\n\n    More.\n    """\n',
            '    x = """a\n        b"""\n    return x\n',
        ),
        (
            'try:\n\tclass A:\n\t\tdef f(self):\n\t\t\t"""Doc."""\n\t\t\treturn 1\nexcept E:\n\tpass\n',
            'class A:\n\tdef f(self):\n\t\t"""Doc."""\n',
            "\t\treturn 1\n",
        ),
        (
            'def f():\r\n    """Doc."""\r\n    @g\r\n    def inner():\r\n        """In."""\r\n        return 1\r\n    return inner\r\n',
            'def f():\n    """Doc."""\n',
            '    @g\n    def inner():\n        """In."""\n        return 1\n    return inner\n',
        ),
        (
            'def f():\n    """A\x0cB."""\n    return "\u2028"\n',
            'def f():\n    """A\x0cB."""\n',
            '    return "\u2028"\n',
        ),
    ],
)
def test_a_function_is_cut_before_its_body(source: str, prompt: str, completion: str) -> None:
    assert pieces(source) == [(prompt, completion)]
    ast.parse(prompt + completion)


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return 1\n",
        "def f():\n    return 1\n",
        'def f():\n    """Doc."""\n',
        'def f():\n    """Doc."""\n    ...\n',
        'def f():\n    """Doc."""\n    pass\n',
    ],
)
def test_a_function_with_too_little_in_it_is_counted_and_left_out(source: str) -> None:
    assert source_parser.parse(source.encode()) == {"rows": [], "small": 1}


def test_prompt_and_completion_are_the_function_itself_throughout_the_standard_library() -> None:
    seen = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::6]:
        source = source_parser.decode(path.read_bytes())
        lines = source.split("\n")
        for found in source_parser.functions(ast.parse(source)):
            row = source_parser._row(found, lines)
            if row is None:
                continue
            node: ast.AST = ast.parse(row["prompt"] + row["completion"]).body[0]
            for _ in found.classes:
                assert isinstance(node, ast.ClassDef)
                node = node.body[0]
            assert _without_docstring(node) == _without_docstring(found.definition), (path.name, row["line"])
            seen += 1
    assert seen > 500


def _without_docstring(node: ast.AST) -> str:
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    documented = ast.get_docstring(node) is not None
    return ast.dump(ast.FunctionDef(node.name, node.args, node.body[documented:], node.decorator_list, node.returns))


@pytest.mark.parametrize(
    ("data", "reason", "line"),
    [
        (b"x = 1\ndef f(:\n", "SYNTAX_ERROR", 2),
        (b"def f():\n\tif x:\n        y\n", "SYNTAX_ERROR", 3),
        (b"print 'python 2'\n", "SYNTAX_ERROR", 1),
        (b"x = " + b"-" * 100_000 + b"1\n", "TOO_COMPLEX", 1),
        (b"x = " + b"(" * 100_000 + b"\n", "SYNTAX_ERROR", 1),
        (b"x = " + b"1+" * 300_000 + b"1\n", "TOO_COMPLEX", 1),
        (b"x = " + b"9" * 5_000 + b"\n", "SYNTAX_ERROR", 1),
        (b"x = 1\ny = '\0'\n", "NUL_CHARACTER", 2),
        (b"x = 1\ny = '\xff'\n", "NOT_UTF8", 2),
        (b"# coding: klingon\n", "NOT_UTF8", 1),
        (
            b"class A" + b"a" * 20_000 + b":\n" + b"  def f(s):\n    'd'\n    return 1\n" * 1_000,
            "TOO_COMPLEX",
            2_513,
        ),  # each row repeats the name
        (b"#" * 1_000_001, "FILE_TOO_LARGE", 1),
    ],
)
def test_a_file_that_cannot_be_read_is_one_rejection_among_good_files(
    tmp_path: Path, data: bytes, reason: str, line: int
) -> None:
    version = process(tmp_path, zipped({"p/a.py": GOOD, "p/b.py": data, "p/c.py": GOOD.replace("x", "y")}, 0))
    assert [(row["source"], row["group"], row["line"]) for row in version.rows] == [
        ("p/a.py", "p/a.py", 1),
        ("p/c.py", "p/c.py", 1),
    ]
    [rejection] = version.rejections
    place = {name: rejection[name] for name in ("source", "reason", "step")}
    assert place == {"source": "p/b.py", "reason": reason, "step": "parse"}
    assert rejection["line"] == line
    assert 0 < len(rejection["excerpt"].encode()) <= 300


def test_source_is_never_executed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    write = f"open({str(victim)!r}, 'w').write('owned')\n"
    source = f"import pathlib\n{write}class A:\n    {write}{GOOD}\n@({write.strip()})\n{GOOD.replace('good', 'other')}"
    members = {
        "setup.py": source,
        "conftest.py": source,
        "sitecustomize.py": source,
        "ast.py": source,
        "p/__init__.py": source,
    }
    version = process(tmp_path / "run", zipped(dict(members), 0))
    assert version.result["rows_in"] == 10
    assert not victim.exists()


def test_a_file_that_uses_up_its_time_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "parser.py"
    code = Path(source_parser.__file__).read_text()
    slow = 'def parse(data, units):\n    while b"slow" in data:\n        pass\n    return _parse(data, units)\n\n\ndef _parse('
    code = code.replace("def parse(", slow, 1).replace("CPU_SECONDS_PER_FILE = 3", "CPU_SECONDS_PER_FILE = 1")
    script.write_text(code)
    monkeypatch.setattr(source_parser, "__file__", str(script))
    with Parser() as parser:
        assert parser.parse(b"# slow\n") == {"reason": "TOO_COMPLEX", "line": 1, "excerpt": "# slow"}
        assert len(parser.parse(GOOD.encode())["rows"]) == 1


def test_a_parser_that_dies_again_and_again_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "parser.py"
    script.write_text("raise SystemExit(1)")
    monkeypatch.setattr(source_parser, "__file__", str(script))
    monkeypatch.setattr(python_source, "MAX_DEATHS", 2)
    members = {f"{number}.py": GOOD for number in range(4)}
    assert refused(tmp_path, zipped(dict(members))).code == "SOURCE_TOO_COSTLY"


def test_one_parser_serves_many_files() -> None:
    begun = time.process_time()
    with Parser() as parser:
        for _ in range(200):
            assert len(parser.parse(GOOD.encode())["rows"]) == 1
    assert time.process_time() - begun < 2


def test_declared_encodings_are_followed() -> None:
    [row] = source_parser.parse('# coding: latin-1\ndef f():\n    "Dü."\n    return 1\n'.encode("latin-1"))["rows"]
    assert row["prompt"] == 'def f():\n    "Dü."\n'


def test_a_single_file_is_one_group_and_stays_together(tmp_path: Path) -> None:
    source = "".join(GOOD.replace("good", f"f{number}") for number in range(30))
    version = process(tmp_path, source, "m.py")
    assert version.result["splits"] == {"TRAIN": 30, "VALIDATION": 0, "TEST": 0}
    assert {(row["group"], row["source"]) for row in version.rows} == {("m.py", None)}
    assert [row["line"] for row in version.rows] == list(range(1, 90, 3))
    assert [event["level"] for event in version.events if "No row fell into" in event.get("text", "")] == ["WARNING"]


def test_columns_cannot_be_mapped_in_source(tmp_path: Path) -> None:
    assert refused(tmp_path, GOOD, columns={"text": "body"}).code == "COLUMN_UNKNOWN"
