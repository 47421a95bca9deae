"""Receives uploads: a plain ASGI callable, because Django's handler spools a whole body before a view sees a byte.

Memory is constant (one megabyte a request), and the client is slowed to what the disk takes. The upload exists once all of
its bytes are in storage and their sha256 is known, whichever way they came:

    PUT                 put.py: all at once; a transfer that breaks off leaves nothing, and may be repeated
    HEAD, PATCH, DELETE tus.py: the tus protocol 1.0; a transfer that breaks off goes on where it stopped
"""

from datasets.receive.route import receive_upload

__all__ = ["receive_upload"]
