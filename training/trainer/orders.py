"""What a run was told to do: run.json, checked. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.child import ChildError
from training.trainer.config import ConfigError, TrainingConfig


@dataclass(frozen=True)
class Production:
    """The adapter of the run's name that was in production when the attempt began."""

    name: str
    """name:version"""
    digest: str
    path: Path
    """A folder in peft's format; nobody has looked into it yet."""


@dataclass(frozen=True)
class Orders:
    """One training run."""

    base_name: str
    """The base model's name in the allow-list; the adapter repeats it."""
    base_revision: str
    """Its commit, or the digest of a model shipped with the platform."""
    base_path: Path
    """Where its files are, or are put."""
    base_is_here: bool
    """Whether they are; else they are downloaded first."""
    splits: Mapping[str, list[Path]]
    """Parquet files of "train", "validation", and "test"; the last two may be empty."""
    config: TrainingConfig
    resume_from: Path | None
    """A checkpoint to go on from."""
    device: str
    """auto (an accelerator where there is one), cpu, or cuda."""
    threads: int | None
    """CPU threads; null: one for each core."""
    processes: int
    """How many share the work, each with a device of its own (team.py)."""
    process: int
    """Which of them this one is, from 0."""
    adapter_name: str
    lineage: Mapping[str, Any]
    """Where the data comes from, for the card."""
    production: Production | None = None
    """What the adapter is measured beside."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Orders:
        """Read run.json. Raises ChildError INVALID_CONFIG for a config that cannot be used."""
        try:
            config = TrainingConfig.from_json(value["config"])
        except ConfigError as error:
            raise ChildError("INVALID_CONFIG", f"The training config cannot be used. {error}") from error
        base = value["base_model"]
        resume_from, production = value.get("resume_from"), value.get("production")
        return cls(
            base_name=base["name"],
            base_revision=base["revision"],
            base_path=Path(base["path"]),
            base_is_here=base.get("is_here", True),
            splits={name: [Path(p) for p in value["data"].get(name, [])] for name in ("train", "validation", "test")},
            config=config,
            resume_from=Path(resume_from) if resume_from else None,
            device=value.get("device", "auto"),
            threads=value.get("threads"),
            processes=value.get("processes", 1),
            process=value.get("process", 0),
            adapter_name=value["adapter_name"],
            lineage=value.get("lineage", {}),
            production=Production(production["name"], production["digest"], Path(production["path"]))
            if production
            else None,
        )
