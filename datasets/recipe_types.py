"""Recipes on the wire."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.scalars import JSON

from datasets.pipeline.expectation import Check, OnFailure
from datasets.pipeline.recipe import Action, Format, PythonUnits

strawberry.enum(
    Format,
    name="DataFormat",
    description="JSON: an array of objects, or an object with one array. PYTHON: source files, or a zip of them, never executed. "
    "Data may be packed by gzip or zstd, or be several files of one format in a zip.",
)
strawberry.enum(
    PythonUnits,
    description="FUNCTIONS and CLASSES: a prompt (header and docstring) and a completion (body). MODULES: the text of each file.",
)
strawberry.enum(
    Action,
    name="PiiAction",
    description="MASK: replaced by placeholders that keep code and JSON parseable. DROP: such rows are left out. KEEP: counted only.",
)
strawberry.enum(
    Check,
    name="ExpectationCheck",
    description=(
        "NOT_NULL: something stands there, and not an empty text. The others pass rows where it does not. REGEX: the text has "
        "the pattern in it. RANGE: it is a number from min to max. SET: it is one of the values. UNIQUE: no row before has it."
    ),
)
strawberry.enum(
    OnFailure,
    name="ExpectationFailure",
    description="DROP: such rows are left out, with the reason EXPECTATION_FAILED. FAIL: no version is made.",
)


@strawberry.type(description="The shares of the splits.")
class SplitShares:
    train: float = strawberry.field(description="Share of the training split.")
    validation: float = strawberry.field(description="Share of the validation split.")
    test: float = strawberry.field(description="Share of the test split.")
    seed: int = strawberry.field(description="Seed of the hash that assigns rows.")


@strawberry.type(
    name="NearDedup",
    description="Rows are near-duplicates when the Jaccard similarity of their shingles reaches the threshold.",
)
class NearDedupType:
    threshold: float = strawberry.field(description="From 0.3 to 1.")
    permutations: int = strawberry.field(description="Values in a MinHash signature.")
    shingle_tokens: int = strawberry.field(description="How many successive tokens make a shingle.")


@strawberry.type(name="NamesModel", description="The model by which names of people are found.")
class NamesModelType:
    name: str = strawberry.field(description="What its makers call it.")
    version: str = strawberry.field(description="Its release.")
    sha256: str = strawberry.field(description="Digest of its files.")


@strawberry.type(
    name="Recipe",
    description="The recipe that a version was made with: RecipeInput's fields, with every default filled in.",
)
class RecipeType:
    format: Format = strawberry.field(description="The format; recognised, once the version is made.")
    python_units: PythonUnits = strawberry.field(description="What became a row of Python source.")
    columns: JSON = strawberry.field(description="Which column is what; recognised, once the version is made.")
    min_characters: int = strawberry.field(description="Shorter completions and texts are dropped.")
    max_characters: int = strawberry.field(description="Longer rows are dropped.")
    expectations: JSON = strawberry.field(description="What was expected of the upload's columns.")
    exact_dedup: bool = strawberry.field(description="Whether equal rows were reduced to the first.")
    near_dedup: NearDedupType | None = strawberry.field(
        description="How rows that are much like another were found; null: they were not."
    )
    pii: Action = strawberry.field(description="What became of personal data.")
    secrets: Action = strawberry.field(description="What became of keys, tokens, and passwords.")
    names: bool = strawberry.field(description="Whether names of people were looked for, as personal data.")
    names_model: NamesModelType | None = strawberry.field(description="By which model; null: they were not.")
    bias: bool = strawberry.field(description="Whether it was counted of whom rows speak, and how.")
    split: SplitShares = strawberry.field(description="How rows were divided.")

    @classmethod
    def of(cls, recipe: dict[str, Any]) -> RecipeType:
        return cls(
            format=Format(recipe["format"]),
            python_units=PythonUnits(recipe.get("python_units", PythonUnits.FUNCTIONS)),  # the only ones at first
            columns=recipe["columns"],
            min_characters=recipe["min_characters"],
            max_characters=recipe["max_characters"],
            expectations=recipe.get("expectations", []),
            exact_dedup=recipe["exact_dedup"],
            # older versions were made without these
            near_dedup=NearDedupType(**near) if (near := recipe.get("near_dedup")) else None,
            pii=Action(recipe.get("pii", Action.KEEP)),
            secrets=Action(recipe.get("secrets", Action.KEEP)),
            names=recipe.get("names") is not None,
            names_model=NamesModelType(**model) if (model := recipe.get("names")) else None,
            bias=recipe.get("bias", False),
            split=SplitShares(**recipe["split"]),
        )
