"""An adapter as a folder, for an operator: as peft reads it, or merged into its base model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError

from common.errors import DomainError
from common.outages import AWAY, first_line
from common.shell import Screen, fail
from common.tenancy import operator
from common.text import one_line
from datasets.interrupting import sigterm_as_ctrl_c
from training.exporting import DTYPES, export_files, export_merged
from training.lookup import adapter_named
from training.trainer.config import Quantization

ACTOR = "command"


class Command(BaseCommand):
    help = (
        "Writes an adapter, of whichever organization, to a new folder: its files as peft reads them or, with --merged, its "
        "base model with it merged in, as transformers loads it, once its logits are those of base and adapter."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="of an adapter, or its beginning")
        parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new one")
        parser.add_argument("--merged", action="store_true", help="its base model with it merged in")
        parser.add_argument(
            "--dtype", choices=DTYPES, default="bfloat16", help="of the merged weights; by default bfloat16"
        )
        parser.add_argument(
            "--quantization",
            type=str.upper,
            choices=[each.value for each in Quantization],
            help="how the base is held that it is merged into; by default as where it was trained",
        )
        parser.add_argument(
            "--prompt",
            dest="prompts",
            action="append",
            default=[],
            help="to compare logits on; may be given several times, and replaces those that are built in",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        screen = Screen(sys.stdout)
        try:
            with sigterm_as_ctrl_c():
                _export(screen, options)
        except DomainError as refusal:
            fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            fail(f"The database does not answer, or was not migrated: {first_line(error)}")
        except FileNotFoundError as error:
            fail(f"A file of this adapter is not in storage any more: {error.filename}")
        except OSError as error:
            fail(f"The folder could not be written, and nothing of it is left: {error.strerror or error}")
        except KeyboardInterrupt:
            print("Interrupted; nothing is left of the folder.", file=sys.stderr)
            sys.exit(130)


def _export(screen: Screen, options: dict[str, Any]) -> None:
    output = options["output"].expanduser()
    with operator():
        adapter = adapter_named(options["id"])
    name = one_line(str(adapter), 200)
    if not options["merged"]:
        export_files(adapter, output, by=ACTOR)
        screen.line(f"Adapter {name}, digest {adapter.digest}: {output}")
        return
    quantization = Quantization(options["quantization"]) if options["quantization"] else None
    result = export_merged(
        adapter,
        output,
        by=ACTOR,
        dtype=options["dtype"],
        quantization=quantization,
        prompts=options["prompts"],
        say=lambda text: screen.line(f"  {one_line(text, 300)}", "dim"),
    )
    screen.line(
        f"Logits differ by {result['difference']:.2g} of the largest ({result['tolerance']:.2g} allowed) from those of base and adapter; "
        f"the likeliest token is the same at {result['same_tokens']:,} of {result['positions']:,} places."
    )
    screen.line(f"{adapter.base_model_name} with {name}, {result['size_bytes']:,} bytes: {output}", "green")
