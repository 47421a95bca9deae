"""`python -m training.trainer ATTEMPT_DIR`: one attempt at a training run. common/child.py describes the protocol."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.child import Attempt
from training.trainer.orders import Orders
from training.trainer.team import end_with_parent, team_of


def main(folder: Path) -> None:
    with Attempt(folder) as attempt:
        orders = Orders.from_json(attempt.orders)
        if orders.process > 0:
            end_with_parent()
        # Threads that spin while they wait for each other starve whoever shares the cores: measured on two busy ones,
        # 170 tokens a second against 1,100.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if orders.threads is not None:
            # Read when the libraries are imported; torch's own setting comes too late for some of them.
            os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(orders.threads)
        if not orders.base_is_here:
            attempt.events.log(f"Downloading base model {orders.base_name}")
            with attempt.interruptible():
                from training.trainer.download import download

                download(orders.base_name, orders.base_revision, orders.base_path)
        os.environ["HF_HUB_OFFLINE"] = "1"  # everything is local; nothing is to reach for the network
        attempt.events.log("Starting the trainer")
        with team_of(attempt, orders) as team:
            with attempt.interruptible():
                from training.trainer.run import train  # seconds of imports, once everything cheap has been checked
            train(attempt, orders, team)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
