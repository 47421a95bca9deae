"""Sends exports: a plain ASGI callable, because a download lasts as long as its reader's line makes it.

Each piece is made in a thread when the reader has taken the one before, and between two pieces a download holds no
thread, and no more memory than a piece and what its file needs. It holds no connection to the database either.
"""

from datasets.download.route import send_download

__all__ = ["send_download"]
