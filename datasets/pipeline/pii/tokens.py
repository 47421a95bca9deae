"""Keys and tokens that are told by how their provider writes them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.placeholders import is_masked, is_placeholder, is_random
from datasets.pipeline.pii.surroundings import begins, ends

LEAST_ENTROPY = 3.0  # bits a byte; hexadecimal has at most 4, words of a language have less than 3 in so few letters

TWILIO_HEAD = b"SK"  # too short to be among the literals: see secrets.py


@dataclass(frozen=True)
class Token:
    """Where a literal stands, a pattern may match; the secret is its last group, or all of it."""

    kind: Kind
    literals: tuple[str, ...]
    pattern: re.Pattern[bytes]
    check: Callable[[bytes], bool]

    def hit(self, data: bytes, position: int, row_end: int) -> Hit | None:
        match = self.pattern.match(data, position, row_end)
        if (
            match is None
            or not begins(data, position)
            or not ends(data, match.end())
            or data[position - 1 : position] == b"-"
        ):
            return None
        start, end = match.span(match.lastindex or 0)
        return Hit(start, end, self.kind) if self.check(data[start:end]) else None


def _is_key(value: bytes) -> bool:
    return is_random(value, LEAST_ENTROPY) and not is_placeholder(value)


def _is_bearer(value: bytes) -> bool:
    return any(48 <= code < 58 for code in value) and _is_key(value)


def _is_jwt(value: bytes) -> bool:
    try:
        header = json.loads(base64.urlsafe_b64decode(value.split(b".")[0] + b"=="))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header and not is_masked(value)


def _is_basic(value: bytes) -> bool:
    """Whether it is `user:password` in base64."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return False
    return (
        bool(user and colon and password)
        and f"{user}{password}".isprintable()
        and not is_placeholder(password.encode())
    )


def _token(kind: Kind, literals: str, pattern: bytes, check: Callable[[bytes], bool] = _is_key) -> Token:
    return Token(kind, tuple(literals.split()), re.compile(pattern), check)


TOKENS = (
    _token(Kind.AWS_ACCESS_KEY, "AKIA ASIA ABIA ACCA", rb"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}"),
    _token(Kind.GITHUB_TOKEN, "ghp_ gho_ ghu_ ghs_ ghr_", rb"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _token(Kind.GITHUB_TOKEN, "github_pat_", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _token(
        Kind.GITLAB_TOKEN,
        "glpat- gldt- glrt- glptt- glcbt-",
        rb"gl[a-z]{2,4}-[A-Za-z0-9_-]{20,64}(?:\.[a-z0-9.]{2,40})?",
    ),
    _token(Kind.SLACK_TOKEN, "xox", rb"xox[abeoprs]-[A-Za-z0-9.-]{10,255}[A-Za-z0-9]"),
    _token(Kind.SLACK_TOKEN, "xapp-", rb"xapp-[0-9]-[A-Za-z0-9-]{20,255}"),
    _token(
        Kind.SLACK_TOKEN,
        "hooks.slack.com",
        rb"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{30,120})",
    ),
    _token(Kind.STRIPE_KEY, "sk_live_ rk_live_ sk_test_", rb"[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
    _token(Kind.STRIPE_KEY, "whsec_", rb"whsec_[A-Za-z0-9+/]{24,64}={0,2}"),
    _token(Kind.GOOGLE_KEY, "AIza", rb"AIza[A-Za-z0-9_-]{35}"),
    _token(Kind.GOOGLE_KEY, "GOCSPX-", rb"GOCSPX-[A-Za-z0-9_-]{28}"),
    _token(Kind.GOOGLE_KEY, "ya29.", rb"ya29\.[A-Za-z0-9_-]{30,1000}"),
    _token(Kind.ANTHROPIC_KEY, "sk-", rb"sk-ant-[a-z]{3,8}[0-9]{2}-[A-Za-z0-9_-]{20,255}"),
    _token(Kind.OPENAI_KEY, "sk-", rb"sk-(?:proj|svcacct|admin|None|or-v1)-[A-Za-z0-9_-]{20,255}"),
    _token(Kind.OPENAI_KEY, "sk-", rb"sk-[A-Za-z0-9]{32,64}"),
    _token(Kind.HUGGING_FACE_TOKEN, "hf_", rb"hf_[A-Za-z0-9]{34,40}"),
    _token(Kind.NPM_TOKEN, "npm_", rb"npm_[A-Za-z0-9]{36}"),
    _token(Kind.PYPI_TOKEN, "pypi-", rb"pypi-A[A-Za-z0-9_-]{50,1000}"),
    _token(Kind.TWILIO_KEY, TWILIO_HEAD.decode(), rb"SK[0-9a-f]{32}"),
    _token(Kind.SENDGRID_KEY, "SG.", rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _token(Kind.AZURE_KEY, "AccountKey=", rb"AccountKey=([A-Za-z0-9+/]{86}==)"),
    _token(Kind.AZURE_KEY, "SharedAccessKey=", rb"SharedAccessKey=([A-Za-z0-9+/]{43}=)"),
    _token(Kind.JWT, "eyJ", rb"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{16,1000}", _is_jwt),
    _token(
        Kind.AUTHORIZATION,
        "Bearer bearer",
        rb"[Bb]earer[ ]{1,4}([A-Za-z0-9._~+/-]{20,4000}[A-Za-z0-9_~+/-]={0,2})",
        _is_bearer,
    ),
    _token(Kind.AUTHORIZATION, "Basic basic", rb"[Bb]asic[ ]{1,4}([A-Za-z0-9+/]{8,500}={0,2})", _is_basic),
)
TOKEN_LITERALS = tuple(
    dict.fromkeys(literal for token in TOKENS if token.kind is not Kind.TWILIO_KEY for literal in token.literals)
)
