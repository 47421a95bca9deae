"""Stands in for the trainer on a bad disk: saves a checkpoint, where it has none, and writes an adapter that then changes."""

import sys
from pathlib import Path

from common.child import Attempt
from training.trainer import checkpoint
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest

with Attempt(Path(sys.argv[1])) as attempt:
    if attempt.orders["resume_from"] is None:
        saved = checkpoint.save(
            attempt.folder / "checkpoints", 6, lambda folder: folder.joinpath("state.json").write_text("{}") and None
        )
        attempt.events.write("CheckpointSaved", step=6, size_bytes=saved.size_bytes, sha256=saved.sha256)
    adapter = attempt.folder / "adapter"
    adapter.mkdir()
    (adapter / ADAPTER_CONFIG).write_text("{}")
    (adapter / ADAPTER_WEIGHTS).write_bytes(bytes(100))
    (adapter / "README.md").write_text("An adapter.")
    digest = adapter_digest(adapter)
    (adapter / ADAPTER_WEIGHTS).write_bytes(bytes(99) + b"\1")
    attempt.succeed(adapter={"digest": digest, "size_bytes": 100}, eval_loss=None, test_loss=None, base_test_loss=None)
