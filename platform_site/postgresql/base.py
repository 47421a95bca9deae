"""The database backend: django-prometheus's, except that idle connections are looked at, and SQL is not worded twice."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import operations
from django_prometheus.db.backends.postgresql import base


class DatabaseOperations(operations.DatabaseOperations):
    compiler_module = "platform_site.postgresql.compiler"


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]
    ops_class = DatabaseOperations

    def chunked_cursor(self) -> Any:
        """What `QuerySet.iterator` reads from: the server's cursor within a transaction, and an ordinary one outside.

        There the server would keep all rows until somebody closes it, behind a pooler of transactions on a connection
        that is somebody else's by then; and `common.tenancy.reading` has no statement to put its scope before.
        """
        return super().chunked_cursor() if self.in_atomic_block else self.cursor()

    def is_usable(self) -> bool:
        """Whether a connection that was idle can be used again.

        A server that has ended it has said so, and its socket can be read: no need to ask `SELECT 1` at the beginning of
        each request, and to wait. Of a server that is stopped, or out of reach, neither would tell without waiting.
        After an error it is asked all the same: what state that left is not to be seen on the socket.
        """
        if self.connection is None or self.connection.closed:
            return False
        if self.errors_occurred:
            usable: bool = super().is_usable()
            return usable
        socket = select.poll()
        socket.register(self.connection, select.POLLIN)
        return not socket.poll(0)  # POLLHUP and POLLERR are reported unasked
