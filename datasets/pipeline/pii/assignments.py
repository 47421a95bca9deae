"""Secrets that are told by what is said of them: assigned to a name, within a URL, or framed as a private key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.placeholders import is_masked, is_placeholder, is_random
from datasets.pipeline.pii.tokens import LEAST_ENTROPY

PRIVATE_KEY_LITERAL, URL_LITERAL = "PRIVATE KEY", "://"
NAME_LITERALS = (
    *("passw", "PASSW", "Passw", "passphrase", "PASSPHRASE", "pwd", "PWD"),
    *("secret", "SECRET", "Secret", "token", "TOKEN", "Token"),
    *("api_key", "API_KEY", "apiKey", "ApiKey", "apikey", "APIKEY", "api-key"),
    *("access_key", "ACCESS_KEY", "accessKey", "AccessKey"),
)

_NAME = rb"(?i:(?P<password>passw(?:or[dt]|d)|passphrase|pwd)|secret|token|api[_-]?key|access_?key)"
# What may follow within the name, how it ends, and the sign: ..._KEY_2 = / "...": / ...: str = / ...=
_SIGN = (
    rb"(?i:(?:[_-]?(?:access|key|token|secret|value|hash|salt|base|prod|dev|live|default|id|[0-9]{1,3})){0,3}"
    rb"(?:\\?[\"'])?\]?[ \t]{0,8}(?::[ \t]{0,4}[A-Za-z_][A-Za-z0-9_.\[\]| ]{0,40}=|:=|=>|={1,3}|[:,])[ \t]{0,8})"
)
_QUOTED = rb"(?:[bBrRuUfF]{0,2})(?P<quote>\\?[\"'`])(?P<quoted>[^\s\"'`\\]{6,400})(?P=quote)"
# Without quotes it ends where nothing can follow that would belong to it.
_BARE = rb"(?P<bare>[A-Za-z0-9][A-Za-z0-9+/_.!@#$%^*~-]{7,200}={0,2})(?=[ \t]*(?:[\r\n,;)}&\]\"'`]|\\[rn\"']|$))"
# Neither the name nor the sign is tried a second time where no value follows.
_NAMED = re.compile(rb"(?P<name>(?>%s))(?P<sign>(?>%s))(?:%s|%s)" % (_NAME, _SIGN, _QUOTED, _BARE))

_WORDS = re.compile(rb"[a-z]+(?:[ _.:/-][a-z]+)*|[A-Z]+(?:[ _.:/-][A-Z]+)*|[A-Z]?[a-z]+(?:[A-Z][a-z]*)+|[A-Z][a-z]+")
_SYMBOL = re.compile(rb"[^A-Za-z0-9]")
_REFERENCE = re.compile(rb"(?i)https?:|[/.~]|\$|%|[a-z_]+\(|(?:self|os|env|config|settings|process|ctx|context)[.\[]")
_COMMON = frozenset(
    b"password passwd pass secret admin root user username test guest postgres mysql redis rabbitmq mongo changeme "
    b"default none null true false empty login token hunter string value demo".split()
)
_AWS = re.compile(rb"[A-Za-z0-9+/]{40}")
_HEXADECIMAL_KEY = re.compile(rb"[0-9a-f]{32}")

_URL = re.compile(rb"://([^\s:@/\"'`<>\\]{0,64}):(?P<value>[^\s@/\"'`<>\\]{3,128})@[A-Za-z0-9\[]")

_BEGIN = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_MOST_PEM_BYTES = 20_000
_FRAME, _END = b"-----", b"-----END"
_BODY = re.compile(rb"\\+[nrt]|(?P<value>[A-Za-z0-9+/=_]+)|[^A-Za-z0-9+/=_]")
_LEAST_PEM_LINE = 16
_UNFRAMED = re.compile(rb"[A-Za-z0-9+/=_\s\"'`\\]*")  # as much as can be a key that is cut off


def named_secret(data: bytes, position: int, row_end: int) -> Hit | None:
    """`password = "..."`, `"api_key": "..."`, `SECRET=...` and their like, where the value looks random enough."""
    match = _NAMED.match(data, position, row_end)
    if match is None:
        return None
    name, sign, quoted, bare = match.group("name", "sign", "quoted", "bare")
    is_password = match["password"] is not None
    if quoted is not None:
        looks_right = _is_password if is_password and b"," not in sign else _is_key
    else:
        is_variable = name.isupper() and sign.endswith(b"=")  # of an environment: NAME=value
        if b"," in sign or _NUMBER.fullmatch(bare) or not (is_variable or _is_no_identifier(bare)):
            return None
        looks_right = _is_password if is_password and is_variable else _is_key
    value = bare if quoted is None else quoted
    if not looks_right(value):
        return None
    near = data[max(0, position - 40) : match.end("sign")].lower()
    return Hit(*match.span("bare" if quoted is None else "quoted"), _kind(near, value, is_password))


def _is_no_identifier(value: bytes) -> bool:
    """Nor the path to an attribute: those have few digits, and at the ends of words."""
    return _IDENTIFIER.fullmatch(value) is None or len(_DIGITS.findall(value)) >= 3


def _kind(near: bytes, value: bytes, is_password: bool) -> Kind:
    if _AWS.fullmatch(value) and (b"aws" in near or b"access" in near):
        return Kind.AWS_SECRET_KEY
    if _HEXADECIMAL_KEY.fullmatch(value) and b"twilio" in near:
        return Kind.TWILIO_KEY
    return Kind.PASSWORD if is_password else Kind.API_KEY


def _is_password(value: bytes) -> bool:
    """Not a word, not a name, not a reference: letters of two sorts, digits, and signs make it one."""
    sorts = (
        bool(_LOWER.search(value))
        + bool(_UPPER.search(value))
        + bool(_DIGIT.search(value))
        + bool(_SYMBOL.search(value))
    )
    return sorts >= 2 and not _is_said_elsewhere(value) and is_random(value, 2.0)


def _is_key(value: bytes) -> bool:
    if len(value) < 16 or not _DIGIT.search(value) or not (_LOWER.search(value) or _UPPER.search(value)):
        return False
    return is_random(value, LEAST_ENTROPY) and not _is_said_elsewhere(value)


_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_DIGITS = re.compile(rb"[0-9]+")
_NUMBER = re.compile(rb"[0-9.eE+_-]+")
_LOWER, _UPPER, _DIGIT = re.compile(rb"[a-z]"), re.compile(rb"[A-Z]"), re.compile(rb"[0-9]")


def _is_said_elsewhere(value: bytes) -> bool:
    return (
        value.lower() in _COMMON
        or _WORDS.fullmatch(value) is not None
        or _REFERENCE.match(value) is not None
        or is_placeholder(value)
    )


def url_password(data: bytes, position: int, row_end: int) -> Hit | None:
    """The password of scheme://user:password@host."""
    match = _URL.match(data, position, row_end)
    if match is None:
        return None
    value = match["value"]
    if value == match[1] or value.lower() in _COMMON or value[:1] in b"${%*[" or is_placeholder(value):
        return None
    return Hit(*match.span("value"), Kind.URL_PASSWORD)


def private_key(data: bytes, position: int, row_end: int) -> Iterator[Hit]:
    r"""The lines of a key between BEGIN and END, one by one: they may be strings of their own, or one string with \n in it."""
    head = data.rfind(b"-----BEGIN ", max(0, position - 40), position)
    begin = _BEGIN.match(data, head, row_end) if head >= 0 else None
    if begin is None:
        return
    limit = min(row_end, begin.end() + _MOST_PEM_BYTES)
    frame = data.find(_FRAME, begin.end(), limit)
    is_whole = frame >= 0 and data.startswith(_END, frame)
    if not is_whole:
        unframed = _UNFRAMED.match(data, begin.end(), limit if frame < 0 else frame)
        limit = unframed.end() if unframed else begin.end()
    lines = [match.span("value") for match in _BODY.finditer(data, begin.end(), frame if is_whole else limit)]
    if not is_whole:
        lines = list(takewhile(lambda line: not _is_anothers(data[slice(*line)]), lines))
    lines = [(start, end) for start, end in lines if end > start and _is_pem_line(data, start, end)]
    for start, end in lines:
        if end - start >= _LEAST_PEM_LINE or (is_whole and (start, end) == lines[-1]):
            yield Hit(start, end, Kind.PRIVATE_KEY)


def _is_anothers(word: bytes) -> bool:
    """Whether it stands for something else: before that was masked, a key that is cut off may have ended there."""
    return is_masked(word) and not word.startswith(Kind.PRIVATE_KEY.value.encode())


def _is_pem_line(data: bytes, start: int, end: int) -> bool:
    """And no number that happens to stand behind the frame, nor a placeholder."""
    return data[start - 1 : start] != b"." and not data[start:end].isdigit() and not is_masked(data[start:end])
