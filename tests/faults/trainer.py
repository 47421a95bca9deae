"""`python -m tests.faults.trainer ATTEMPT_DIR`: a trainer in all but the training.

It keeps to the protocol of common/child.py, and saves through training/trainer/checkpoint.py, as the real one does, but
starts in a tenth of a second instead of ten. scripts.py says what a run's name makes it do; witness.py what it tells.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from common.child import Attempt, ChildError, Interrupted, sync_folder
from tests.faults.scripts import (
    STUMBLING_ATTEMPTS,
    USER_ERROR_CODE,
    Behaviour,
    Script,
    first_state,
    next_state,
    weights,
)
from tests.faults.witness import Witness
from training.trainer import checkpoint
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest

STATE = "state.json"
LOG_EVERY_S = 0.25


class Training:
    def __init__(self, attempt: Attempt, witness: Witness) -> None:
        self.attempt, self.witness = attempt, witness
        self.script = Script.of(attempt.orders["adapter_name"])
        config = attempt.orders["config"]
        self.total, self.seed, self.keep = config["max_steps"], config["seed"], config["keep_checkpoints"]
        self.every = config["checkpoint_every_steps"] or max(1, self.total // 10)
        self.step, self.state = self._resumed() if attempt.orders["resume_from"] else (0, first_state(self.seed))
        self.start = self.step
        self.logged_at = 0.0

    def _resumed(self) -> tuple[int, bytes]:
        found = checkpoint.whole_or_older(Path(self.attempt.orders["resume_from"]))
        if found is None:
            raise ChildError("CHECKPOINT_DAMAGED", "No checkpoint is whole.")
        saved = json.loads((found.folder / STATE).read_text())
        self.attempt.events.log(f"Going on from step {saved['step']}")
        return saved["step"], bytes.fromhex(saved["state"])

    def run(self) -> None:
        try:
            while self.step < self.total:
                self.attempt.check_stop() if self.script.behaviour is not Behaviour.DEAF else None
                self._misbehave()
                self._make_step()
                if self.step % self.every == 0 or self.step == self.total:
                    self._save()
        except Interrupted:
            if self.step > self.start:
                self._save()
            raise
        self._finish()

    def _make_step(self) -> None:
        time.sleep(self.script.step_ms / 1000)
        self.step += 1
        self.state = next_state(self.state, self.step)
        self.witness.write("step", self.step)
        now = time.monotonic()
        if now - self.logged_at > LOG_EVERY_S or self.step == self.total:
            self.logged_at = now
            figures = {"loss": 1 / self.step, "learning_rate": 0.001, "grad_norm": 1.0, "tokens": self.step}
            self.attempt.events.write("StepLogged", step=self.step, total_steps=self.total, **figures)

    def _save(self) -> None:
        def write_files(folder: Path) -> None:
            if self.script.behaviour is Behaviour.SLOW_SAVE:
                self.witness.write("saving", self.step)
                time.sleep(1)
            (folder / STATE).write_text(json.dumps({"step": self.step, "state": self.state.hex()}))

        folder = self.attempt.folder / "checkpoints"
        saved = checkpoint.save(folder, self.step, write_files)
        checkpoint.rotate(folder, self.keep)
        self.witness.write("checkpoint", self.step)
        self.attempt.events.write("CheckpointSaved", step=saved.step, size_bytes=saved.size_bytes, sha256=saved.sha256)

    def _misbehave(self) -> None:
        match self.script.behaviour:
            case Behaviour.USER_ERROR if self.step >= self.total // 2:
                raise ChildError(USER_ERROR_CODE, "There is nothing to learn from these rows.")
            case Behaviour.STUMBLES if int(self.attempt.folder.name) <= STUMBLING_ATTEMPTS:
                os._exit(3)
            case Behaviour.POISON_EXIT:
                os._exit(3)
            case Behaviour.POISON_SIGNAL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Behaviour.POISON_WORKER:
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)  # the kernel ends this process, too

    def _finish(self) -> None:
        adapter = self.attempt.folder / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / ADAPTER_CONFIG).write_text(json.dumps({"seed": self.seed, "steps": self.total}))
        (adapter / ADAPTER_WEIGHTS).write_bytes(weights(self.state))
        (adapter / "README.md").write_text("# A stand-in\n")
        sync_folder(adapter)
        self.witness.write("adapter", self.step)
        self.attempt.succeed(**self._result(adapter))
        self.witness.write("finished", self.step)

    def _result(self, adapter: Path) -> dict[str, Any]:
        return {
            "steps": self.step,
            "total_steps": self.total,
            "eval_loss": None,
            "test_loss": None,
            "base_test_loss": None,
            "adapter": {"digest": adapter_digest(adapter), "size_bytes": (adapter / ADAPTER_WEIGHTS).stat().st_size},
        }


def main(folder: Path) -> None:
    with Attempt(folder) as attempt:
        witness = Witness(attempt.orders["lineage"]["training_run"], int(folder.name))
        with witness.alone():
            witness.write("started")
            Training(attempt, witness).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
