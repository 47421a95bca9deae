"""The embedded servers: a private PostgreSQL 18 and a private Redis, for whoever configures none.

Commands start them, never an import of settings. One holder process is the parent of both; it lives as long as somebody
holds a shared lock, so neither has to be started or stopped by hand, and nothing is left when the last user has gone,
however it went. DATABASE_URL and REDIS_URL replace them.
"""

from platform_site.engines.client import (
    NOT_STARTED,
    Engines,
    ensure,
    revive,
    start_if_needed,
    start_nothing,
    status,
    urls,
    users,
)
from platform_site.engines.place import EnginesError, platform_home, prepare_home

__all__ = [
    "NOT_STARTED",
    "Engines",
    "EnginesError",
    "ensure",
    "platform_home",
    "prepare_home",
    "revive",
    "start_if_needed",
    "start_nothing",
    "status",
    "urls",
    "users",
]
