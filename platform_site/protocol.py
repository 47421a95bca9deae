"""HTTP as uvicorn speaks it, to clients who may mean harm: what they send, and leave unread, is bounded in time and size."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_WITHIN_S = 20.0  # a request's line and headers, from the connection or from their first byte
HEAD_BYTES = 1 << 16  # of them, and of what is neither head nor body
STALLED_AFTER_S = 60.0  # whoever takes nothing of an answer for so long has gone, or holds our memory
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's own, which waits for headers, and keeps them, for as long as somebody sends them."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _loose_bytes = 0
    """Since the request began, or since the last piece of its body: headers, trailers, and what stands between chunks."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        self._unset_stalled()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._loose_bytes += len(data)
        super().data_received(data)
        if self._loose_bytes > HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(TOO_LARGE)
                self.transport.close()
            else:  # an answer is under way
                self.transport.abort()
        elif self._is_idle():  # an empty line, say, which ends uvicorn's own patience
            self._expect_head()

    def on_message_begin(self) -> None:
        self._loose_bytes = 0
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._rest()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """There is more to send than the client takes."""
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unset_stalled()

    def _is_idle(self) -> bool:
        """Nothing is under way, and nothing ends it: uvicorn's patience, say, which any byte ends."""
        is_between = self.cycle is None or self.cycle.response_complete
        is_ours = self.transport.get_protocol() is self  # and no websocket by now
        return is_ours and is_between and self._deadline is None and self.timeout_keep_alive_task is None

    def _expect_head(self) -> None:
        self._rest()
        self._deadline = self.loop.call_later(HEAD_WITHIN_S, self.transport.abort)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_again(self, left: int) -> None:
        self._unset_stalled()
        self._stalled = self.loop.call_later(STALLED_AFTER_S, self._end_if_stalled, left)

    def _end_if_stalled(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._look_again(left)

    def _unset_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
