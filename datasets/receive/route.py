"""Which way a request takes, and what becomes of what goes wrong on it."""

from __future__ import annotations

import logging

from common.child import NO_SPACE
from common.outages import AWAY
from datasets.receive import tus
from datasets.receive.answers import Disconnected, Message, Receive, Refusal, Send, acknowledge, answer
from datasets.receive.arrival import named_by
from datasets.receive.places import a_place
from datasets.receive.put import put
from datasets.receive.spool import off_the_loop

logger = logging.getLogger(__name__)


async def receive_upload(scope: Message, receive: Receive, send: Send) -> None:
    """/uploads/<token>. Errors are JSON {code, message}; to HEAD, which has no body, the status has to say it all."""
    try:
        with a_place():
            await _respond(scope, receive, send)
    except Refusal as refusal:
        if scope["method"] == "HEAD":
            await acknowledge(send, refusal.status, [*refusal.headers, (b"cache-control", b"no-store")])
        else:
            content = {"code": refusal.code, "message": refusal.message}
            await answer(send, refusal.status, content, refusal.headers)
    except AWAY:
        message = "The database cannot be reached; send the file again."
        await answer(send, 503, {"code": "UNAVAILABLE", "message": message})
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        logger.exception("The disk is full.")
        message = "The platform has no room for this file now; its operators have to make some."
        await answer(send, 507, {"code": "DISK_FULL", "message": message})
    except Disconnected:
        pass


async def _respond(scope: Message, receive: Receive, send: Send) -> None:
    method, token = _method(scope), scope["path"].rpartition("/")[2]
    if method == "OPTIONS":
        await acknowledge(send, 200, tus.options())
        return
    if method not in ("PUT", "HEAD", "PATCH", "DELETE"):
        message = "Send the file's bytes with PUT, or by the tus protocol with HEAD and PATCH."
        raise Refusal(405, "METHOD_NOT_ALLOWED", message)
    upload = await off_the_loop(lambda: named_by(token))
    if method == "PUT":
        sha256 = await put(upload, scope, receive)
        await answer(send, 201, {"receivedBytes": upload.size_bytes, "sha256": sha256})
    elif method == "HEAD":
        await acknowledge(send, 200, await tus.head(upload, scope))
    elif method == "PATCH":
        await acknowledge(send, 204, await tus.patch(upload, scope, receive))
    else:
        await acknowledge(send, 204, await tus.delete(upload, scope))


def _method(scope: Message) -> str:
    """Some clients can send nothing but GET and POST, and name the method that they mean in a header."""
    meant: bytes = dict(scope["headers"]).get(b"x-http-method-override", b"")
    return meant.decode("latin-1").upper() or scope["method"]
