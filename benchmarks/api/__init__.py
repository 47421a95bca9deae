"""An object, a list, and the ends of a table of a million rows through the API, signed in and with their SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import Limit, Ratio, Report, alternated, median_interval, told
from benchmarks.home import fresh_home

OURS = "platform"
PEERS = {
    "strawberry": "the same models with strawberry-django's defaults: stock schema, view, optimizer, and offset pages",
    "drf": "Django REST framework, with the cursor pages that its guide has for large tables",
}
TOTAL = 1_000_000
ROUND_S = 3.0
ROUNDS = 10  # the fewest, of an even number, whose interval is not simply from the best to the worst
PAGES = ["first_page", "last_page", "page_after"]
PAGE_ROUNDS, PAGE_ROUND_S = 60, 0.5  # a tenth more or less is to be told apart: next to each other, and often
MAX_STATEMENTS = 4
MAX_LAST_TO_FIRST = 1.2
TARGETS = {("strawberry", "in_memory"): 5.0, ("strawberry", "one"): 1.8}
QUESTIONS = {
    "one": "an object, signed in",
    "hundred": "a list of 100",
    "first_page": f"the first page of {TOTAL:,}",
    "last_page": f"the last page of {TOTAL:,}",
}
UNLIMITED = {"REQUESTS_PER_MINUTE": "1000000000"}  # one person asks, as fast as there are answers

Measured = dict[tuple[str, str], list[dict[str, float]]]  # by question and contender, the rounds


def run(peers: Sequence[str]) -> Report:
    report = Report("api")
    with ExitStack() as stack:
        home = stack.enter_context(fresh_home()) | UNLIMITED
        rows = stack.enter_context(Actor("benchmarks.api.rows:Rows", env=home))
        key = rows.call("fill", 600, many=TOTAL)["run"]
        measured = _in_memory(report, home, [name for name in (OURS, *peers) if name != "drf"])
        contenders = {
            name: stack.enter_context(Actor("benchmarks.api.contender:Contender", name, key, str(TOTAL), env=home))
            for name in (OURS, *peers)
        }
        _compare(report, contenders, rows.call("tokens"))
        for questions in (["one"], ["hundred"], ["first_page", "last_page"]):
            asked = [(question, name) for question in questions for name in contenders]
            measured |= _alternating(contenders, asked, rows.call("tokens"), ROUNDS, ROUND_S)
        ours, asked = {OURS: contenders[OURS]}, [(page, OURS) for page in PAGES]
        pages = _alternating(ours, asked, rows.call("tokens"), PAGE_ROUNDS, PAGE_ROUND_S)
    for name, contender in contenders.items():
        report.commands[name] = contender.command
        report.ours[f"{name}_peak_mib"] = contender.memory.peak_bytes / 2**20
    _judge(report, measured, peers)
    _judge_pages(report, pages)
    return report


def _in_memory(report: Report, home: dict[str, str], names: Sequence[str]) -> Measured:
    measured: Measured = defaultdict(list)
    with ExitStack() as stack:
        actors = {
            name: stack.enter_context(Actor("benchmarks.api.in_memory:InMemory", name, env=home)) for name in names
        }
        answers = [actor.call("answer") for actor in actors.values()]
        report.checks["in memory: the same answer from each"] = all(answer == answers[0] for answer in answers)
        for actor in actors.values():
            actor.call("measure", seconds=1.0)  # warm-up
        for number, name in alternated(list(actors), ROUNDS):
            _note(measured, number, "in_memory", name, actors[name].call("measure", seconds=ROUND_S))
    return measured


def _compare(report: Report, contenders: dict[str, Actor], tokens: dict[str, str]) -> None:
    """The same rows from each, before any of them is timed, and how much SQL that took."""
    for name, contender in list(contenders.items()):
        try:
            contender.call("sign_in", tokens=tokens)
            answers = {question: contender.call("answer", question=question) for question in QUESTIONS}
            statements = {question: contender.call("statements", question=question) for question in (*QUESTIONS, "ten")}
        except ActorFailed as error:
            if name == OURS:
                raise
            report.failed_peers[name] = str(error)
            del contenders[name]
            continue
        report.ours |= {f"{name}_statements_{question}": len(sql) for question, sql in statements.items()}
        if name == OURS:
            ours = answers
            after = contender.call("answer", question="page_after")
            report.checks |= {
                "the first page and the last are 100 rows each": all(
                    len(answers[page]) == 100 for page in ("first_page", "last_page")
                ),
                "the page after the last cursor but 100 is the last page": after == answers["last_page"],
                "a list takes as many statements for 10 rows as for 100": len(statements["ten"])
                == len(statements["hundred"]),
            }
            most = max(len(statements[question]) for question in QUESTIONS)
            report.limits["statements"] = Limit(most, MAX_STATEMENTS)
        else:
            report.checks[f"{name}: the same rows as ours"] = answers == ours


def _alternating(
    contenders: dict[str, Actor],
    asked: Sequence[tuple[str, str]],
    tokens: dict[str, str],
    rounds: int,
    seconds: float,
) -> Measured:
    measured: Measured = defaultdict(list)
    for contender in contenders.values():
        contender.call("sign_in", tokens=tokens)
    for question, name in asked:
        contenders[name].call("measure", question=question, seconds=0.5)  # warm-up
    for number, (question, name) in alternated(asked, rounds):
        _note(measured, number, question, name, contenders[name].call("measure", question=question, seconds=seconds))
    return measured


def _note(measured: Measured, number: int, question: str, name: str, figures: dict[str, float]) -> None:
    measured[question, name].append(figures)
    told(round=number + 1, question=question, contender=name, ms=1000 * figures["s_a_call"])


def _judge(report: Report, measured: Measured, peers: Sequence[str]) -> None:
    halves = {key: median(figures["half"] for figures in rounds) for key, rounds in measured.items()}
    report.checks["half the calls took half the time"] = all(
        0.4 <= half <= 0.6 for key, half in halves.items() if min(figures["calls"] for figures in measured[key]) >= 20
    )
    took = {key: [figures["s_a_call"] for figures in rounds] for key, rounds in measured.items()}
    report.ours |= {f"{name}_{question}_ms": 1000 * median(rounds) for (question, name), rounds in took.items()}
    for peer in peers:
        for question, what in {"in_memory": "an object in memory", **QUESTIONS}.items():
            if (question, peer) in took:
                both = zip(took[question, peer], took[question, OURS], strict=True)
                ratio = Ratio.of([theirs / ours for theirs, ours in both], TARGETS.get((peer, question)))
                report.ratios[f"{peer}: {what}"] = ratio


def _judge_pages(report: Report, measured: Measured) -> None:
    took = {page: [figures["s_a_call"] for figures in measured[page, OURS]] for page in PAGES}
    for page in PAGES[1:]:
        ratios = [later / first for later, first in zip(took[page], took["first_page"], strict=True)]
        report.ours[f"{page}_to_first_page"] = median(ratios)
        report.limits[f"{page}_to_first_page"] = Limit(median_interval(ratios)[1], MAX_LAST_TO_FIRST)
