"""What base and adapter are asked: a few rows of a split that the adapter has not learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROMPT_CHARACTERS = 1_500  # well inside the shipped model's context, whatever the script
EASY_TO_READ = (60, 700)  # characters of prompt and answer together, where there is a choice


@dataclass(frozen=True)
class Question:
    prompt: str
    answer: str  # what the data says should follow


def question_of(row: dict[str, Any]) -> Question | None:
    """A row as its trainer reads it; a text is cut in the middle. None where nothing is left to ask or to answer."""
    if row["completion"] is not None:
        prompt, answer = row["prompt"] or "", row["completion"]
    elif row["messages"]:
        prompt, answer = _chat(row["messages"])
    else:
        text = row["text"] or ""
        middle = text.find("\n", len(text) // 3) + 1 or len(text) // 2
        prompt, answer = text[:middle], text[middle:]
    return Question(prompt[-PROMPT_CHARACTERS:], answer) if prompt.strip() and answer.strip() else None


def _chat(messages: list[dict[str, str]]) -> tuple[str, str]:
    last = max((index for index, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        return "", ""
    before = "".join(f"### {message['role']}\n{message['content']}\n\n" for message in messages[:last])
    return f"{before}### assistant\n", messages[last]["content"]


def choose(rows: list[dict[str, Any]], count: int) -> list[Question]:
    """Evenly spaced among the rows that fit on a screen, or the shortest where too few do: nobody picked the best."""
    questions = list(dict.fromkeys(question for row in rows if (question := question_of(row))))
    low, high = EASY_TO_READ
    fitting = [question for question in questions if low <= len(question.prompt) + len(question.answer) <= high]
    if len(fitting) < count:
        return sorted(questions, key=lambda question: len(question.prompt) + len(question.answer))[:count]
    return [fitting[(2 * index + 1) * len(fitting) // (2 * count)] for index in range(count)]
