"""Whoever is over their rate is told so where their bytes come in.

For each task, wait, and write of an answer the event loop asks for Python's lock once more, which a thread that computes holds for up to five
milliseconds. So a refusal that goes the way of an answer costs others ten times what it computes
(docs/decisions/0038-refused-at-the-door.md).
"""

from __future__ import annotations

from http import HTTPStatus

from django.conf import settings

import platform_site.asgi  # noqa: F401  (what comes next needs what it has loaded)
from platform_site.answers import Answer
from platform_site.askers import asker_of
from platform_site.browsers import completed
from platform_site.limits.excess import refusal_of
from platform_site.protocol import BoundedProtocol
from platform_site.v1 import door as v1

CALLS = {b"/graphql": refusal_of, **dict.fromkeys((path.encode() for path in v1.GENERATING), v1.refusal_of)}
"""By the address of a POST, what they are told at once for whom there is no room."""
UNREAD_BYTES = 1 << 16  # whoever does not take their answers waits like everybody else


class Door(BoundedProtocol):
    _refusal: Answer | None = None
    """Of the request whose body is on its way."""
    _thrown_away = 0
    """Bytes of that body."""

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()  # it came with the same bytes as one that was refused
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._refusal, self._thrown_away = self._refused(), 0
        if self._refusal is None:
            super().on_headers_complete()
        else:
            self._expect_head()  # and the body with it: what is thrown away may not come slowly, either

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            super().on_body(body)
            return
        self._loose_bytes = 0
        self._thrown_away += len(body)
        if self._thrown_away > settings.MAX_BODY_BYTES:
            self.transport.abort()

    def on_message_complete(self) -> None:
        if self._refusal is None:
            super().on_message_complete()
            return
        self._rest()
        self._loose_bytes = 0
        answered = completed(self._refusal.headers, self.scope, self.url.decode())
        headers = [*self.server_state.default_headers, *answered]
        status = HTTPStatus(self._refusal.status)
        head = [f"HTTP/1.1 {status} {status.phrase}".encode(), *(b"%b: %b" % header for header in headers)]
        self.transport.write(b"\r\n".join([*head, b"", self._refusal.body]))
        self._refusal = None
        self.on_response_complete()

    def _refused(self) -> Answer | None:
        """Where it is a plain call, and the next to be answered."""
        if self.parser.get_http_version() != "1.1":
            return None
        call = CALLS.get(self.url)
        if call is None or self.parser.get_method() != b"POST" or not self.parser.should_keep_alive():
            return None
        if self.expect_100_continue or self.parser.should_upgrade():
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        if self.transport.get_write_buffer_size() > UNREAD_BYTES:
            return None
        length = dict(self.headers).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > settings.MAX_BODY_BYTES:
            return None
        asker = asker_of(self.scope)
        return call(asker) if asker[0] else None  # where strangers come from a proxy says, and ASGI reads that
