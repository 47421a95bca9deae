"""Fine-tunes a base model with QLoRA: `python -m training.trainer ATTEMPT_DIR`. Pure Python: no Django in here."""
