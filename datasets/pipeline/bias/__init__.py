"""Bias in numbers: of whom the rows of a version speak, in what words, and what they are labelled. See step.py."""

from datasets.pipeline.bias.step import Bias

__all__ = ["Bias"]
