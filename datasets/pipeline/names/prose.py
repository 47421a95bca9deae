r"""What of a text is written for people: the rest is not shown to a model of language.

Code is not read for names: `Random`, `Django`, and `Rose` are classes there, and a model that has learned from news takes them
for people. Its comments and docstrings are read, for there people sign what they have made. Whether a text is code is told by
its lines; in prose, what stands in fences, in backticks, or looks like a line of code is none. Of JSON, chats among it, each
string is a text of its own; its keys are not read.

All is linear in the text, whatever is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from datasets.pipeline.pii.placeholders import OURS

CODE_SHARE = 0.4  # of the lines that say something

LOOKED_AT = 1_000  # characters of a line, to tell what it is

_STRINGS = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?', re.DOTALL)
_ESCAPES = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_ESCAPES_OF_JSON = re.compile(
    r"""(?:\\")+|\\(?:\\(?:\\"|[abfnrtv'])?|u[0-9A-Fa-f]{4}|.)""", re.DOTALL
)  # and code's in it
_OURS = re.compile(OURS.pattern.decode())
_FENCE = re.compile(r"[ >]{0,8}(?:```|~~~)")
_INLINE = re.compile(
    r"`[^`\n]*`|https?://\S+|</?[A-Za-z][^<>\n]*>|(?<![\w.])\w++(?:\.\w++)*+\([^()\n]*\)"  # code, addresses, tags, calls
)

# Lines of many languages that few sentences look like.
_CODE_LINE = re.compile(
    r"""
      [{};]\s*$ | [\w)\]]\s*[(\[]\s*$ | [)\]]:\s*$ | ^\s*[)\]}]+[;,]?\s*$
    | ^\s*(?:@\w+(?:\(|\s*$) | \#\s*(?:include|define|ifn?def|endif|pragma)\b | \#! | \$\s | >>>\s )
    | ^\s*(?:import\s+\w[\w.,\s]*$ | from\s+[\w.]+\s+import\b | (?:async\s+)?def\s+\w+\s*\( | class\s+\w+\s*[:({]
           | (?:return|raise|yield|await|del|assert|throw)\b(?!.*[.!?]\s*$)
           | (?:const|let|var|func|fn|function|public|private|protected|static|struct|enum|package|using|namespace)\s(?=.*[={(;])
           | (?:if|for|while|with|try|else|except|finally|elif|switch|case|match)\b.*:\s*$
           | (?:else|try|finally|do|then|fi|done|end|begin|pass|break|continue)\s*:?\s*$ )
    | ^\s*+[\w.\[\]"'*&]++(?:\s*+,\s*+[\w.\[\]]++)*+(?:\s*+:\s*+[\w.\[\]|]++)?\s*+(?:[-+*/%|&^@:]|<<|>>|//|\*\*)?=(?!=)\s*\S
    | ^\s*+(?:await\s++)?[\w.]++\([^()]*\)[;,]?\s*$
    | ==|!=|&&|\|\||\w::\w|\w->\w|\)\s*[-=]>|=>\s*[{(]|\+=|-=|\w\+\+|:=
    | ^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|FROM|WHERE|JOIN)\s
    """,
    re.VERBOSE,
)

# What is passed over in code, and what of it is read: comments, and strings of three quotes. Of escapes none is left here.
_READ = re.compile(
    r"""
      \"{3}(?P<double>.*?)(?:\"{3}|\Z) | '{3}(?P<single>.*?)(?:'{3}|\Z)
    | /\*(?P<block>.*?)(?:\*/|\Z) | <!--(?P<markup>.*?)(?:-->|\Z)
    | "[^"\n]*+"? | '[^'\n]*+'?
    | (?<![^\s;{})])(?:\#+|//+|--)(?=[\s\w!*])(?P<line>[^\n]*)
    | (?m:^)[ \t]*(?:;+|%+)[ \t](?P<lone>[^\n]*)
    """,
    re.VERBOSE | re.DOTALL,
)


def prose(text: str) -> str:
    """The text with what is not for people as spaces: as long as it was, so that a place in one is the same in the other."""
    strings = _OURS.sub(_spaces, text)
    if _is_json(text):
        return _assembled(text, _within_json(strings))
    return _assembled(text, _within(_ESCAPES.sub(_spaces, strings)))


Kept = Iterator[tuple[int, str]]  # where something is read, and what stands there


def _assembled(text: str, kept: Kept) -> str:
    """Lines stay lines: what is not read is no reason to take two sentences for one."""
    pieces, done = [], 0
    for start, said in kept:
        pieces += [_blank(text[done:start]), said]
        done = start + len(said)
    return "".join((*pieces, _blank(text[done:])))


def _within_json(text: str) -> Kept:
    for string in _STRINGS.finditer(text):
        if string[2] is None:  # else it is a key
            for start, said in _within(_ESCAPES_OF_JSON.sub(_unescaped, string[1])):
                yield string.start(1) + start, said


def _within(text: str) -> Kept:
    """Of one text, in its order. Lines of code that follow one another are looked at together: a comment may span them."""
    is_code, is_fenced = _is_code(text), False
    at = code_from = 0
    for line in text.splitlines(keepends=True):
        is_fence = _FENCE.match(line) is not None
        is_prose = not (is_fenced or is_fence or is_code or _looks_like_code(line))
        if is_prose:
            yield from _of_code(text[code_from:at], code_from)
            yield at, _INLINE.sub(_spaces, line)
            code_from = at + len(line)
        elif is_fence:
            yield from _of_code(text[code_from:at], code_from)
            code_from, is_fenced = at + len(line), not is_fenced
        at += len(line)
    yield from _of_code(text[code_from:], code_from)


def _of_code(text: str, begin: int) -> Kept:
    for found in _READ.finditer(text):
        if found.lastgroup is not None:
            start = found.start(found.lastgroup)
            at = begin + start
            for line in found[found.lastgroup].splitlines(keepends=True):
                if not _looks_like_code(line):
                    yield at, _INLINE.sub(_spaces, line)
                at += len(line)


def _is_code(text: str) -> bool:
    said = code = 0
    is_fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_fenced = not is_fenced
        elif not is_fenced and line.strip():
            said += 1
            code += _looks_like_code(line)
    return code > 0 and code >= CODE_SHARE * said


def _looks_like_code(line: str) -> bool:
    return _CODE_LINE.search(line, 0, LOOKED_AT) is not None


def _is_json(text: str) -> bool:
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] not in ("{}", "[]"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _unescaped(escape: re.Match[str]) -> str:
    """As long as it was: the end of a line, quotes, of which three in a row stay so, or spaces."""
    if escape[0] == "\\n":
        return " \n"
    quotes = len(escape[0]) // 2 if escape[0].startswith('\\"') else 0
    return '"' * quotes + " " * (len(escape[0]) - quotes)


def _spaces(found: re.Match[str]) -> str:
    return " " * len(found[0])


_BLANK = re.compile(r"[^\n]")


def _blank(text: str) -> str:
    return _BLANK.sub(" ", text)
