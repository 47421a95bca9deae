"""Takes Python source apart into functions, classes, or whole modules, in a process of its own. Source is parsed, never imported or executed.

Run as a script in an isolated interpreter (python -I -S), with the standard library only: a parser can be made to use
up its stack, memory, or time, and then only this process ends. Requests and replies are JSON after a length of 8 bytes.

A function with a docstring and a body after it is a row, and so is one without a docstring that has at least two
statements. The prompt is what stands before the body (the class, decorators, signature, docstring), the completion is
the body; prompt + completion is runnable source text. Functions within functions belong to the outer one's body.

A class is cut in the same way: without a docstring it needs a method, or two statements. What is within a class or a
function belongs to that one. A module is its text, and has to hold more than a docstring.
"""

from __future__ import annotations

import ast
import io
import json
import resource
import struct
import sys
import time
import tokenize
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_SOURCE_BYTES = 1_000_000
MAX_MEMORY_BYTES = 256 << 20
MAX_REPLY_BYTES = 16 << 20
CPU_SECONDS_PER_FILE = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Refused(Exception):
    def __init__(self, reason: str, line: int, excerpt: str) -> None:
        super().__init__(reason)
        self.reason, self.line, self.excerpt = reason, line, excerpt


@dataclass(frozen=True)
class Found:
    """A function or class, and the classes around it, the outermost first."""

    definition: Definition
    classes: tuple[ast.ClassDef, ...]


def parse(data: bytes, units: str = "FUNCTIONS") -> dict[str, Any]:
    """{"rows": [{prompt, completion, line}], "small": how many have too little in them} or {"reason", "line", "excerpt"}.

    Units are FUNCTIONS, CLASSES, or MODULES; a row of the last has line and text.
    """
    try:
        source = decode(data)
        module = _parse_source(source)
        if units == "MODULES":
            return _whole(module, source)
        lines = source.split("\n")
        rows, small, size = [], 0, 0
        for found in classes(module) if units == "CLASSES" else functions(module):
            row = _row(found, lines)
            if row is None:
                small += 1
                continue
            size += len(row["prompt"]) + len(row["completion"])
            if size > MAX_REPLY_BYTES:  # a long class name is repeated by each of its methods
                raise Refused("TOO_COMPLEX", row["line"], row["prompt"][:300])
            rows.append(row)
        return {"rows": rows, "small": small}
    except Refused as refused:
        return {"reason": refused.reason, "line": refused.line, "excerpt": refused.excerpt}
    except (RecursionError, MemoryError):
        return {"reason": "TOO_COMPLEX", "line": 1, "excerpt": data[:300].decode("utf-8", "replace")}


def decode(data: bytes) -> str:
    """Source text with \\n at each line's end, in the encoding that it declares (PEP 263)."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError) as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else _first_bad_byte(data)
        line = data.count(b"\n", 0, start) + 1
        seen = data.split(b"\n")[line - 1][:300].decode("utf-8", "replace")
        raise Refused("NOT_UTF8", line, seen) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _first_bad_byte(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _parse_source(source: str) -> ast.Module:
    place = source.find("\0")
    if place >= 0:
        raise Refused(
            "NUL_CHARACTER", source.count("\n", 0, place) + 1, _line(source, source.count("\n", 0, place) + 1)
        )
    try:
        source.encode()
    except UnicodeEncodeError as error:  # some declared encodings can make lone surrogates
        line = source.count("\n", 0, error.start) + 1
        raise Refused("LONE_SURROGATE", line, _line(source, line).encode("utf-8", "replace").decode()) from None
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = error.lineno or 1
        raise Refused("SYNTAX_ERROR", line, f"{error.msg}: {_line(source, line).strip()}") from None
    except ValueError:  # a number of more than 4,300 digits
        raise Refused("NUMBER_TOO_LONG", 1, source[:300]) from None


def _line(source: str, number: int) -> str:
    lines = source.split("\n")
    return lines[number - 1][:300] if 0 < number <= len(lines) else ""


def functions(module: ast.Module) -> list[Found]:
    """Functions and methods in the order of the file, also those under if, try, and with, but not those in functions."""
    found = []
    waiting: list[tuple[ast.AST, tuple[ast.ClassDef, ...]]] = [(module, ())]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, Function):
            found.append(Found(node, around))
            continue
        if isinstance(node, ast.ClassDef):
            around = (*around, node)
        waiting.extend((child, around) for block in _blocks(node) for child in block)
    return sorted(found, key=lambda one: one.definition.lineno)


def classes(module: ast.Module) -> list[Found]:
    """Classes in the order of the file, also those under if, try, and with, but not those in classes and functions."""
    found = []
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef):
            found.append(Found(node, ()))
        elif not isinstance(node, Function):
            waiting.extend(child for block in _blocks(node) for child in block)
    return sorted(found, key=lambda one: one.definition.lineno)


def _blocks(node: ast.AST) -> list[list[ast.AST]]:
    children = [getattr(node, name, None) for name in ("body", "handlers", "orelse", "finalbody", "cases")]
    return [one for one in children if isinstance(one, list)]  # the body of a lambda or conditional is no block


def _whole(module: ast.Module, source: str) -> dict[str, Any]:
    body = module.body[1:] if module.body and _is_docstring(module.body[0]) else module.body
    if all(_is_placeholder(statement) for statement in body):
        return {"rows": [], "small": 1}
    return {"rows": [{"text": source, "line": 1}], "small": 0}


def _row(found: Found, lines: list[str]) -> dict[str, Any] | None:
    function = found.definition
    body = function.body
    documented = _is_docstring(body[0])
    rest = body[1:] if documented else body
    has_method = isinstance(function, ast.ClassDef) and any(isinstance(one, Function) for one in rest)
    if len(rest) < (1 if documented or has_method else 2) or all(_is_placeholder(statement) for statement in rest):
        return None
    cut_line, cut_column = _cut(body[0] if documented else None, rest[0], lines)
    outermost = found.classes[0] if found.classes else function
    prefix = _indent(lines[_start(outermost) - 1])
    strings = _lines_within_strings(function) if prefix else frozenset()

    def text(begin: int, end: int) -> str:
        return "".join(_dedent(lines[number - 1], prefix, number in strings) + "\n" for number in range(begin, end))

    context = "".join(f"{_indent(lines[_start(one) - 1])[len(prefix) :]}class {one.name}:\n" for one in found.classes)
    end = (function.end_lineno or function.lineno) + 1
    if cut_column == 0:
        prompt, completion = text(_start(function), cut_line), text(cut_line, end)
    else:
        whole = _dedent(lines[cut_line - 1], prefix, cut_line in strings)
        cut = len(whole) - len(lines[cut_line - 1]) + cut_column
        prompt = text(_start(function), cut_line) + whole[:cut]
        completion = whole[cut:] + "\n" + text(cut_line + 1, end)
    return {"prompt": context + prompt, "completion": completion, "line": function.lineno}


def _cut(docstring: ast.stmt | None, first: ast.stmt, lines: list[str]) -> tuple[int, int]:
    """Where the completion begins: (line, column in characters).

    After the docstring, or after the signature: comments before the first statement belong to the completion. Where
    that statement shares its line with what precedes it, within the line.
    """
    start = _start(first)
    column = len(lines[start - 1].encode()[: first.col_offset].decode())
    if docstring is not None:
        last = docstring.end_lineno or docstring.lineno
    else:
        last = start - 1
        while last > 0 and (not lines[last - 1].strip() or lines[last - 1].lstrip().startswith("#")):
            last -= 1
    if lines[start - 1][:column].strip():
        return start, column
    return last + 1, 0


def _start(node: ast.stmt) -> int:
    """The line of the first decorator, or of the statement."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t\f"))]


def _dedent(line: str, prefix: str, within_string: bool) -> str:
    """A line inside a string keeps its spaces: they are content."""
    return line if within_string or not line.startswith(prefix) else line[len(prefix) :]


def _lines_within_strings(function: Definition) -> frozenset[int]:
    first = function.body[0]
    docstring = first.value if isinstance(first, ast.Expr) and _is_docstring(first) else None
    inside: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and node is not docstring:
            inside.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    return frozenset(inside)


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_placeholder(statement: ast.stmt) -> bool:
    """`pass` or `...`: nothing to learn."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is Ellipsis
    )


def main(units: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while (data := _read(requests)) is not None:
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(time.process_time()) + CPU_SECONDS_PER_FILE, resource.RLIM_INFINITY)
        )
        reply = json.dumps(parse(data, units)).encode()
        replies.write(struct.pack(">Q", len(reply)) + reply)
        replies.flush()


def _read(requests: BinaryIO) -> bytes | None:
    size = requests.read(8)
    if len(size) < 8:
        return None
    return requests.read(struct.unpack(">Q", size)[0])


if __name__ == "__main__":
    main(sys.argv[1])
