"""`manage.py predict`, as an operator uses it, with the real server behind it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from accounts.models import AuditEntry
from common.lookup import api_id
from common.tenancy import operator
from inference.management.commands import predict as command
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.commands import said_by
from tests.inference.asking import Files, hers
from tests.inference.test_predict_api import predict
from tests.rows import BASE, make_adapter
from training.models import Adapter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("served")]

PROMPT = "def add(a, b):\n"
ASKED = ("--prompt", PROMPT, "--max-new-tokens", "8")


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def adapter(ada: Person, files: Files) -> Adapter:
    return hers(ada, files)


def run_command(capfd: Any, *arguments: object) -> tuple[int, str, str]:
    """Exit status, output as it is, and errors in one line."""
    status, output, errors = said_by(capfd, "predict", *arguments)
    return status, "\n".join(output), " ".join(errors.split())


def audited(person: Person) -> list[tuple[str, str, str]]:
    with operator():
        found = AuditEntry.objects.filter(organization_id=person.organization.pk, action="model.predict")
        return list(found.values_list("actor", "action", "target"))


def test_an_adapter_answers_by_whatever_it_is_called(ada: Person, adapter: Adapter, files: Files, capfd: Any) -> None:
    expected = predict(ada, adapter)
    spent = used(ada).tokens_today
    each = expected["promptTokens"] + expected["completionTokens"]
    names = [str(adapter), adapter.pk.hex[:8], str(adapter.pk), api_id(adapter), str(adapter.training_run_id)]
    for name in names:
        status, output, errors = run_command(capfd, name, *ASKED)
        assert status == 0, errors
        assert output.split() == expected["text"].split()
        assert f"{expected['promptTokens']} tokens and {expected['completionTokens']} new ones" in errors
        assert f"by First:1, digest {files.digest}" in errors
    assert used(ada).tokens_today == spent + len(names) * each
    assert not any(key.startswith("prediction:") for _, key in entries(ada))
    assert audited(ada) == [("command", "model.predict", f"adapter:{adapter.pk}")] * len(names)


def test_the_text_comes_as_it_is_generated_and_is_the_same(ada: Person, adapter: Adapter, capfd: Any) -> None:
    whole = run_command(capfd, str(adapter), *ASKED)
    streamed = run_command(capfd, str(adapter), *ASKED, "--stream")
    assert streamed[:2] == whole[:2] != (0, "")
    assert used(ada).tokens_today > 0
    assert not any(key.startswith("prediction:") for _, key in entries(ada))


def test_the_base_model_is_asked_for_nobody_or_for_whom_one_says(ada: Person, capfd: Any) -> None:
    expected = predict(ada)
    each, spent = expected["promptTokens"] + expected["completionTokens"], used(ada).tokens_today
    status, output, errors = run_command(capfd, BASE, *ASKED)
    assert (status, output.split()) == (0, expected["text"].split())
    assert errors.endswith(f"by {BASE}")
    assert (used(ada).tokens_today, audited(ada)) == (spent, [])
    assert run_command(capfd, BASE, *ASKED, "--organization", "ada-s")[0] == 0
    assert (used(ada).tokens_today, audited(ada)) == (spent + each, [("command", "model.predict", "")])


def test_what_is_sampled_repeats_with_its_seed_and_ends_at_a_stop(ada: Person, capfd: Any) -> None:
    sampled = ("--prompt", PROMPT, "--max-new-tokens", "24", "--temperature", "1", "--top-p", "0.9")
    first, again, other = (run_command(capfd, BASE, *sampled, "--seed", seed)[1] for seed in (1, 1, 2))
    assert first == again != other
    whole = predict(ada, maxNewTokens=24)["text"]
    stop = whole[6:9]
    status, output, errors = run_command(capfd, BASE, "--prompt", PROMPT, "--stop", "no such text", "--stop", stop)
    assert (status, output.split()) == (0, whole[: whole.index(stop)].split())
    assert errors.startswith("STOP after ")


def test_a_prompt_comes_from_a_file_or_a_pipe(tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_command(capfd, BASE, *ASKED)[1]
    prompt = tmp_path / "prompt.py"
    prompt.write_text(PROMPT)
    assert run_command(capfd, BASE, "--file", prompt, "--max-new-tokens", "8")[1] == said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROMPT.encode())))
    assert run_command(capfd, BASE, "--file", "-", "--max-new-tokens", "8")[1] == said
    prompt.write_bytes(b"x = '\xff'")
    assert run_command(capfd, BASE, "--file", prompt) == (
        1,
        "",
        f"{prompt} is not UTF-8: byte 6 is no part of a character.",
    )
    missing = tmp_path / "nothing"
    assert run_command(capfd, BASE, "--file", missing) == (
        1,
        "",
        f"{missing} cannot be read: No such file or directory.",
    )


def test_what_cannot_be_asked_is_said_in_a_line(ada: Person, adapter: Adapter, capfd: Any, settings: Any) -> None:
    charlie = make_person("Charlie")
    make_adapter(charlie)
    several = run_command(capfd, "First:1", *ASKED)
    assert several[:2] == (1, "")
    assert "names several adapters: " in several[2] and "(First:1 of ada-s)" in several[2]
    assert run_command(capfd, "First:1", *ASKED, "--organization", "ada-s")[0] == 0
    assert run_command(capfd, "First:1", *ASKED, "--organization", str(ada.organization.pk))[0] == 0
    for arguments, said in (
        (
            ("First:1", *ASKED, "--organization", "adas"),
            "No organization has the slug or the id 'adas'; there is ada-s.",
        ),
        (
            ("First:7", *ASKED),
            f"There is no adapter First:7: the admin lists them by name and version. The base model is {BASE}.",
        ),
        (("zzz", *ASKED), "'zzz' is no id: one begins with hexadecimal digits, as 3f2a91c0 does."),
        (
            ("bigcode/starcoder2-3b", *ASKED),
            f"bigcode/starcoder2-3b is not served here: the inference server holds {BASE}.",
        ),
        ((BASE, *ASKED, "--temperature", "-1"), "The temperature should be 0 or a positive number, not -1.0."),
    ):
        assert run_command(capfd, *arguments) == (1, "", said)
    allow(ada, tokens_per_day=0)
    status, _, errors = run_command(capfd, adapter.pk.hex[:12], *ASKED)
    assert status == 1
    assert errors.startswith("Your organization may use 0 tokens a day, and has used or reserved ")
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    assert run_command(capfd, BASE, *ASKED) == (1, "", "The inference server is away; try again in a moment.")
    assert run_command(capfd, BASE, *ASKED, "--stream") == (
        1,
        "",
        "The inference server is away; try again in a moment.",
    )


def test_nothing_that_a_model_says_commands_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "a\x1b]0;title\x07b\n\tc\u202ed\r"
    for screen, written in ((Terminal(), "a\ufffd]0;title\ufffdb\n\tc\ufffdd\ufffd"), (io.StringIO(), text)):
        monkeypatch.setattr(sys, "stdout", screen)
        command._write(text)
        assert screen.getvalue() == written
