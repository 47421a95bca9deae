"""What is settled before the schema is imported."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured

GDAL = "django.contrib.gis.gdal"


class NoGdal(MetaPathFinder):
    """Says that there is no GDAL, as its import would after a search.

    strawberry-django has types for maps where it finds the library. Python looks for one by running ldconfig, compilers,
    and linkers, for twelve names, twice: dozens of processes and half a second at each start, for nothing of ours.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == GDAL:
            raise ImproperlyConfigured("The platform has no maps.")
        return None


class PlatformSiteConfig(AppConfig):
    name = "platform_site"

    def ready(self) -> None:
        sys.meta_path.insert(0, NoGdal())
