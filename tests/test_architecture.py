"""The shape of the code: what the web process imports and costs, and that the schema says what everything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from graphql import GraphQLEnumType, GraphQLNamedType, is_introspection_type, is_specified_scalar_type
from strawberry.printer import print_schema

from platform_site.schema import schema
from tests.processes import environment

HEAVY = [
    *("torch", "transformers", "peft", "bitsandbytes", "evidently", "google.cloud.aiplatform"),
    *("pandas", "polars", "pyarrow"),
]
MOST_MODULES = 1_800  # 1,702 today, of which two in five are Django's own
OURS = ["common", "accounts", "datasets", "training", "inference", "platform_site"]

PROCESSES = """
import sys
started = []
sys.addaudithook(lambda event, arguments: started.append(arguments[0]) if event == "subprocess.Popen" else None)
"""

FIRST_REQUEST = """
import asyncio, json, os, sys
from platform_site.asgi import application

answer = []

async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}

async def send(message):
    answer.append(message.get("status") or message.get("body"))

headers = [(b"host", b"127.0.0.1")]
scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": headers}
scope |= {"http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "root_path": ""}
asyncio.run(application(scope, receive, send))
heavy = [name for name in HEAVY if name in sys.modules]
print(json.dumps([answer[0], heavy, started, len(sys.modules)]), flush=True)
os._exit(0)  # the pool of threads is not waited for
"""

CHECK = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "platform_site.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
print(json.dumps(["platform_site.schema" in sys.modules, started]))
"""

TRAINER = """
import datasets, sys
import training.trainer.run
print(datasets.__file__)
print([name for name in ("transformers.trainer", "transformers.training_args", "trl") if name in sys.modules])
"""


def python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, env=environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.django_db
def test_the_web_process_imports_nothing_heavy_and_little_else() -> None:
    """A start costs what it imports, and modules can be counted: seconds would measure the machine as well."""
    status, heavy, processes, modules = json.loads(python(f"HEAVY = {HEAVY}\n{PROCESSES}{FIRST_REQUEST}"))
    assert (status, heavy, processes) == (200, [], [])
    assert 1_000 < modules < MOST_MODULES


@pytest.mark.django_db
def test_a_command_that_looks_at_everything_starts_no_process() -> None:
    """Seed 118 of the checker: compilers that had searched for a library, killed with `up`, left files of theirs behind."""
    assert json.loads(python(PROCESSES + CHECK).splitlines()[-1]) == [True, []]


@pytest.mark.django_db
def test_datasets_is_our_app_and_the_trainer_does_without_transformers_trainer() -> None:
    where, imported = python(TRAINER).splitlines()
    assert (where, imported) == (str(settings.BASE_DIR / "datasets" / "__init__.py"), "[]")


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert (settings.BASE_DIR / "schema.graphql").read_text().strip() == print_schema(schema).strip()


def test_every_type_field_argument_and_input_has_a_description() -> None:
    types: dict[str, GraphQLNamedType] = schema._schema.type_map
    bare = []
    for name, kind in types.items():
        if is_introspection_type(kind) or is_specified_scalar_type(kind):
            continue
        described: list[tuple[str, Any]] = [(name, kind)]
        if not isinstance(kind, GraphQLEnumType):
            for field_name, field in getattr(kind, "fields", {}).items():
                described.append((f"{name}.{field_name}", field))
                for argument_name, argument in getattr(field, "args", {}).items():
                    described.append((f"{name}.{field_name}({argument_name})", argument))
        bare += [place for place, one in described if not (one.description or "").strip()]
    assert len(types) > 60
    assert bare == []


def test_every_model_of_ours_is_in_the_admin() -> None:
    models = [model for model in apps.get_models() if model._meta.app_label in OURS]
    assert len(models) >= 11
    assert [model.__name__ for model in models if not admin.site.is_registered(model)] == []


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run([linter, "--no-cache"], cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120)
    assert "0 broken" in linted.stdout, linted.stdout + linted.stderr
    assert linted.returncode == 0
