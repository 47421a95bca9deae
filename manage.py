#!/usr/bin/env python3
"""The door to every command. Checks what a start needs, starts the embedded servers, and hands over to Django.

Up to the version check this file has to run on any Python 3.
"""

import importlib.util
import os
import sys
import warnings

NEEDS_NO_ENGINES = {
    # Django's
    "help",
    "version",
    "check",
    "collectstatic",
    "diffsettings",
    "findstatic",
    "makemigrations",
    # ours
    "build_base_model",
    "engines",  # looks, and starts nothing
    "export_schema",
    "inference_server",
    "demo",  # starts them itself, as `up` does
    "up",  # starts them itself, once it knows that it can run
}


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036
        return refuse(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}.")
    if importlib.util.find_spec("django") is None:
        return refuse(f"{sys.executable} has no Django: run `make up`, which sets up .venv, or use .venv/bin/python.")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "platform_site.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from platform_site import engines

    try:
        if needs_engines(sys.argv[1:]):
            engines.start_if_needed()
        else:
            engines.start_nothing()
            warnings.filterwarnings("ignore", "Got an error checking a consistent migration history")
        execute_from_command_line(sys.argv)
    except (engines.EnginesError, ImproperlyConfigured) as error:
        return refuse(str(error))
    return 0


def needs_engines(arguments: "list[str]") -> bool:
    asks_for_help = not arguments or "--help" in arguments or "-h" in arguments
    return not (asks_for_help or arguments[0].startswith("-") or arguments[0] in NEEDS_NO_ENGINES)


def refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
