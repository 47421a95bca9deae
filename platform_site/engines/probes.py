"""Whether the servers answer: a real query, a real PING."""

from __future__ import annotations

import socket
from pathlib import Path

from platform_site.engines.place import REDIS_SOCKET
from platform_site.engines.postgres import SUPERUSER

DATABASE = "platform"


def postgres_answers(folder: Path) -> bool:
    """Whether a query is answered; makes the database if it is missing."""
    import psycopg2  # not needed by the holder, which imports this package, too
    import psycopg2.errors

    try:
        connection = psycopg2.connect(host=str(folder), port=5432, user=SUPERUSER, dbname="postgres", connect_timeout=5)
    except psycopg2.OperationalError:
        return False
    try:
        connection.autocommit = True  # CREATE DATABASE wants no transaction
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
        pass  # another user of the engines was quicker
    except psycopg2.OperationalError:
        return False
    finally:
        connection.close()
    return True


def redis_answers(folder: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folder / REDIS_SOCKET))
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


PROBES = {"postgres": postgres_answers, "redis": redis_answers}
