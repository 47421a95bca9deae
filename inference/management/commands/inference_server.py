"""manage.py inference_server: runs the process that owns the accelerator."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from common.blobs import open_read
from common.errors import Invalid
from training import catalogue


class Command(BaseCommand):
    help = "Hold one quantized base model and answer predictions with it and its adapters."
    requires_system_checks = ()  # type: ignore[assignment]

    def add_arguments(self, parser: ArgumentParser) -> None:
        url = urlsplit(settings.INFERENCE_URL)
        model = catalogue.default().name
        parser.add_argument("--host", default=url.hostname or "127.0.0.1", help="the address to listen on")
        parser.add_argument("--port", type=int, default=url.port or 8001, help="0 takes any that is free")
        parser.add_argument("--base-model", default=model, help=f"the name that tickets call it by ({model})")
        parser.add_argument("--base-model-path", type=Path, help="a folder in transformers' format, if not its own")
        parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default=settings.DEVICE)
        parser.add_argument("--slots", type=int, default=8, help="adapters in the model at a time")
        parser.add_argument("--max-rank", type=int, default=256, help="the largest LoRA rank that a slot takes")
        parser.add_argument("--active", type=int, default=8, help="requests that share the model at a time")
        parser.add_argument("--queue", type=int, default=256, help="requests that may wait")
        parser.add_argument("--patience", type=int, default=30, help="seconds that a request may wait for its turn")
        parser.add_argument(
            "--drain", type=int, default=20, help="seconds that requests at work have to finish once it is to stop"
        )
        parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: by the size of the model")

    def handle(self, *_: Any, **options: Any) -> None:
        for name in ("slots", "max_rank", "active", "queue", "patience"):
            if options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} should be 1 or more.")
        # torch takes seconds to import, and --help needs none of it
        from inference.engine.engine import EngineConfig
        from inference.server.backend import ServerConfig
        from inference.server.cache import cached_fetch
        from inference.server.serve import AddressInUse, leave, serve

        path, revision = options["base_model_path"], ""
        try:
            if path is None:
                model = catalogue.named(options["base_model"])
                path, revision = catalogue.fetch(model), model.revision
        except Invalid as error:
            raise CommandError(error.message) from error
        config = ServerConfig(
            EngineConfig(
                base_model=options["base_model"],
                path=path,
                revision=revision,
                kept=settings.QUANTIZED_BASES_ROOT,
                device=options["device"],
                slots=options["slots"],
                max_rank=options["max_rank"],
                threads=options["threads"] or None,
            ),
            active_limit=options["active"],
            queue_limit=options["queue"],
            patience_s=options["patience"],
        )
        fetch = cached_fetch(open_read, settings.CACHED_ADAPTERS_ROOT)
        try:
            status = serve(
                config,
                secret=settings.INFERENCE_SECRET,
                fetch=fetch,
                host=options["host"],
                port=options["port"],
                drain_s=max(0, options["drain"]),
                announce=lambda line: print(line, flush=True),
            )
        except AddressInUse as error:
            raise CommandError(str(error)) from error
        leave(status)
