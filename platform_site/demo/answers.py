"""Base and adapter are asked the same, and their answers stand beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from platform_site.demo import operations
from platform_site.demo.client import Client, Failed
from platform_site.demo.questions import Question, choose
from platform_site.demo.report import Answers
from platform_site.demo.screen import Screen

QUESTIONS = 3
ASKING = {"maxNewTokens": 64, "temperature": 0.5, "topP": 0.9, "seed": 17}
"""A little chance: by the likeliest token alone, a model this small soon repeats itself."""


@dataclass
class Interview:
    client: Client
    screen: Screen
    adapter: dict[str, Any]

    def hold(self, version_id: str, language: str) -> list[Answers]:
        self.screen.chapter("Ask the base model and the adapter")
        split, questions = self.questions(version_id)
        self.screen.lines(
            f"{len(questions)} prompts of the {split.lower()} split, chosen by their length alone; "
            f"at most {ASKING['maxNewTokens']} tokens, temperature {ASKING['temperature']}, the same seed for both",
        )
        return [self.answer(number, question, language) for number, question in enumerate(questions, start=1)]

    def questions(self, version_id: str) -> tuple[str, list[Question]]:
        """Of the test split; of another where the data is too small to have one."""
        for split in ("TEST", "VALIDATION", "TRAIN"):
            rows = self.client.ask(operations.PREVIEW, id=version_id, split=split)["preview"]
            if questions := choose(rows, QUESTIONS):
                return split, questions
        raise Failed("The dataset has no row to ask about.")

    def answer(self, number: int, question: Question, language: str) -> Answers:
        asked = {"prompt": question.prompt, **ASKING}
        self.screen.question(f"Prompt {number}", question.prompt, question.answer, language)
        with self.screen.spinner("The base model answers"):
            base = self.client.ask(operations.PREDICT, input=asked)
        asked["adapterId"] = self.adapter["id"]
        if number == 1:
            with_adapter = self.stream(asked, language)
        else:
            with self.screen.spinner("The adapter answers"):
                with_adapter = self.client.ask(operations.PREDICT, input=asked)
        if with_adapter["adapterDigest"] != self.adapter["digest"] or base["adapterDigest"] is not None:
            raise Failed("An answer does not come from the adapter that was asked.")
        self.screen.side_by_side(
            (told("base", base), base["text"]), (told("adapter", with_adapter), with_adapter["text"]), language
        )
        return Answers(question.prompt, base["text"], with_adapter["text"], with_adapter["adapterDigest"])

    def stream(self, asked: dict[str, Any], language: str) -> dict[str, Any]:
        """The same as `predict`, piece by piece over the websocket."""
        text = ""
        with self.screen.typing("adapter, streamed", language) as show:
            for chunk in self.client.subscribe(operations.GENERATE, input=asked):
                text += chunk["text"]
                show(text)
                if chunk["prediction"]:
                    prediction: dict[str, Any] = chunk["prediction"]
                    return prediction
        raise Failed("The adapter's answer broke off.")


def told(who: str, prediction: dict[str, Any]) -> str:
    digest = f", digest {prediction['adapterDigest'][:8]}" if prediction["adapterDigest"] else ""
    return f"{who}{digest}: {prediction['completionTokens']} tokens in {prediction['seconds']:.1f} s"
