"""One contender: Django's WSGI application with the platform's middleware, asked in its own process by a signed-in person."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.test.utils import CaptureQueriesContext

from benchmarks.api.dialects import DIALECTS, PlatformDialect, Request, normalised
from benchmarks.api.timing import timed
from common.ownership import as_owner

FEW, MANY = "few", "many"  # whose runs are asked for
PAGE = 100
TRANSACTION_ENDS = ("BEGIN", "COMMIT")


class Contender:
    """Asked for a `question`: one, ten, hundred, first_page, last_page, or page_after (the last one, after a cursor)."""

    def __init__(self, name: str, key: str, total: str) -> None:
        self._dialect = DIALECTS[name]()
        self._key, self._total = key, int(total)
        self._tokens: dict[str, str] = {}
        self._stack = ExitStack()
        if self._dialect.sees_all_rows:
            self._stack.enter_context(as_owner())
        settings.ROOT_URLCONF = self._dialect.urls
        self._application: Any = get_wsgi_application()

    def close(self) -> None:
        self._stack.close()

    def sign_in(self, tokens: dict[str, str]) -> None:
        self._tokens = tokens

    def answer(self, question: str) -> list[dict[str, Any]]:
        """The rows, in the words that all contenders share."""
        return [normalised(row) for row in self._dialect.rows(json.loads(self._ask(*self._request(question))))]

    def statements(self, question: str) -> list[str]:
        """SQL that an answer takes once it was given before, without the beginnings and ends of transactions."""
        self._ask(*self._request(question))
        with CaptureQueriesContext(connection) as captured:
            self._ask(*self._request(question))
        return [query["sql"] for query in captured if query["sql"] not in TRANSACTION_ENDS]

    def measure(self, question: str, seconds: float) -> dict[str, float]:
        environ, body = self._request(question)
        return timed(lambda: self._ask(environ, body), seconds)

    def _request(self, question: str) -> tuple[dict[str, Any], bytes]:
        if question in ("one", "ten", "hundred"):
            return self._environ(FEW, *self._few(question))
        return self._environ(MANY, *self._many(question))

    def _few(self, question: str) -> Request:
        if question == "one":
            return self._dialect.one(self._key)
        return self._dialect.first_page(10 if question == "ten" else PAGE)

    def _many(self, question: str) -> Request:
        match question:
            case "first_page":
                return self._dialect.first_page(PAGE)
            case "last_page":
                return self._dialect.last_page(PAGE, self._total)
            case "page_after":
                assert isinstance(self._dialect, PlatformDialect)
                return self._dialect.page_after(PAGE, self._cursor_before_last_page(self._dialect))
        raise AssertionError(question)

    def _cursor_before_last_page(self, platform: PlatformDialect) -> str:
        """Where one gets by going on from page to page."""
        last_page = platform.first_cursor(self._answered(platform.last_page(PAGE, self._total)))
        return platform.first_cursor(self._answered(platform.row_before(last_page)))

    def _answered(self, request: Request) -> Any:
        return json.loads(self._ask(*self._environ(MANY, *request)))

    def _environ(self, whose: str, method: str, target: str, body: bytes) -> tuple[dict[str, Any], bytes]:
        path, _, query = target.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_AUTHORIZATION": f"Bearer {self._tokens[whose]}",
            "HTTP_HOST": "localhost",
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
        }
        return environ, body

    def _ask(self, environ: dict[str, Any], body: bytes) -> bytes:
        """The answer's body. Raises AssertionError for any but a 200."""
        said: list[str] = []
        chunks = self._application({**environ, "wsgi.input": BytesIO(body)}, lambda status, *_: said.append(status))
        try:
            answer = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        assert said == ["200 OK"], (said, answer[:500])
        return answer
