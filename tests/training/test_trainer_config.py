"""A training config: its defaults, and what it refuses, by field."""

from typing import Any

import pytest

from training.trainer.config import LINEAR_LAYERS, ConfigError, Quantization, Scheduler, TrainingConfig


def test_nothing_given_is_the_qlora_recipe_and_comes_back_from_json() -> None:
    config = TrainingConfig.from_json({})
    assert config.to_json() == {
        "epochs": 3.0,
        "max_steps": None,
        "learning_rate": 2e-4,
        "scheduler": "COSINE",
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "batch_size": 4,
        "gradient_accumulation": 1,
        "max_sequence_tokens": 1024,
        "packing": True,
        "fim_rate": 0.0,
        "quantization": "NF4",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": list(LINEAR_LAYERS),
        "eval_every_steps": None,
        "checkpoint_every_steps": None,
        "keep_checkpoints": 2,
        "early_stopping_patience": None,
        "seed": 17,
    }
    assert TrainingConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("given", "field", "kept"),
    [
        ({"epochs": 2}, "epochs", 2.0),
        ({"max_steps": None}, "max_steps", None),
        ({"scheduler": "LINEAR"}, "scheduler", Scheduler.LINEAR),
        ({"quantization": "NONE"}, "quantization", Quantization.NONE),
        ({"target_modules": None}, "target_modules", LINEAR_LAYERS),
        ({"target_modules": ["v_proj", "q_proj", "v_proj"]}, "target_modules", ("q_proj", "v_proj")),
        ({"lora_dropout": 0}, "lora_dropout", 0.0),
    ],
)
def test_what_is_accepted(given: dict[str, Any], field: str, kept: object) -> None:
    value = getattr(TrainingConfig.from_json(given), field)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": float("nan")}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": 1.5}, "max_steps"),
        ({"learning_rate": "2e-4"}, "learning_rate"),
        ({"learning_rate": 2}, "learning_rate"),
        ({"learning_rate": None}, "learning_rate"),
        ({"scheduler": "POLYNOMIAL"}, "scheduler"),
        ({"scheduler": ["COSINE"]}, "scheduler"),
        ({"warmup_ratio": -0.1}, "warmup_ratio"),
        ({"batch_size": True}, "batch_size"),
        ({"packing": 1}, "packing"),
        ({"quantization": "INT8"}, "quantization"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["lm_head"]}, "target_modules"),
        ({"target_modules": "q_proj"}, "target_modules"),
        ({"seed": -1}, "seed"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"patience": 3}, "patience"),
    ],
)
def test_what_is_refused_names_the_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_json(given)
    assert caught.value.field == field
