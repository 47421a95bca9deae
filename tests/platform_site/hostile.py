"""Documents that ask for far too much, or are wrong in costly ways. A benchmark asks for the same."""

from __future__ import annotations

from typing import Any


def numbered(count: int, text: str) -> str:
    """`text` as often as that, each time with another number in the place of #."""
    return " ".join(text.replace("#", str(number)) for number in range(count))


def chain(count: int, selections: str, last: str, kind: str = "Query") -> str:
    """Fragments F0, F1 .. of which each holds `selections`, in which # is the next one's number."""
    links = [f"fragment F{at} on {kind} {{ {selections.replace('#', str(at + 1))} }}" for at in range(count)]
    return " ".join([*links, f"fragment F{count} on {kind} {{ {last} }}"])


EXPONENTIAL_FIELDS = "a: members { user { id } } ...F# ...F#"
CIRCULAR = "fields { type { " * 4 + "name" + " } }" * 4

HOSTILE: list[tuple[str, str, str]] = [
    ("fragments in a circle", "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "TOO_DEEP"),
    ("a fragment that spreads itself", "{ ...A } fragment A on Query { me { email } ...A }", "TOO_DEEP"),
    ("fragments that double", "{ ...F0 } " + chain(30, "...F# ...F#", "me { email }"), "TOO_DEEP"),
    ("doubled ten times", "{ ...F0 } " + chain(10, "...F# ...F#", "me { email }"), "TOO_MANY_REPEATS"),
    (
        "doubled beside fields",
        "{ organizations { ...F0 } } " + chain(10, EXPONENTIAL_FIELDS, "id", "Organization"),
        "TOO_MANY_REPEATS",
    ),
    (
        "doubled through aliases",
        "{ me { ...F0 } } "
        + chain(10, "a: memberships { user { ...F# } } b: memberships { user { ...F# } }", "id", "User"),
        "TOO_DEEP",
    ),
    ("a chain of fragments", "{ ...F0 } " + chain(50, "...F#", "me { email }"), "TOO_DEEP"),
    ("hundreds of fragments", "{ me { email } } " + numbered(300, "fragment F# on User { id }"), "TOO_LONG"),
    ("hundreds of operations", numbered(300, "query Q# { me { id } }"), "TOO_LONG"),
    ("10,000 aliases", f"{{ {numbered(10_000, 'a#: __typename')} }}", "TOO_LONG"),
    ("900 aliases", f"{{ {numbered(900, 'a#: __typename')} }}", "TOO_MANY_ALIASES"),
    ("900 aliases below a field", f"{{ me {{ {numbered(900, 'a#: id')} }} }}", "TOO_MANY_ALIASES"),
    ("10,000 directives", "{ __typename " + "@a " * 10_000 + "}", "TOO_LONG"),
    ("1,000 directives", "{ __typename " + "@a " * 1_000 + "}", "TOO_MANY_DIRECTIVES"),
    ("directives here and there", f"{{ me {{ {'... @skip(if: true) { id } ' * 51} }} }}", "TOO_MANY_DIRECTIVES"),
    ("10,000 repeated fields", "{ " + "__typename " * 10_000 + "}", "TOO_LONG"),
    ("2,900 repeated fields", "{ " + "__typename " * 2_900 + "}", "TOO_MANY_REPEATS"),
    ("repeated in inline fragments", "{ " + "... { me { email } } " * 300 + "}", "TOO_MANY_REPEATS"),
    (
        "repeated on each level, a few times",
        "{ " + ("me { " + ("memberships { " + "role " * 5 + "} ") * 5 + "} ") * 5 + "}",
        "TOO_MANY_REPEATS",
    ),
    (
        "repeated in one of two fragments of a name",
        "{ me { ...A } } fragment A on User { " + "id " * 2_500 + "} fragment A on User { id }",
        "TOO_MANY_REPEATS",
    ),
    ("10,000 levels", "{ a " * 10_000 + "}" * 10_000, "TOO_DEEP"),
    ("100 levels", "{ a " * 100 + "}" * 100, "TOO_DEEP"),
    ("100 levels of inline fragments", "{ me {" + "... { " * 100 + "id" + "}" * 100 + "}}", "TOO_DEEP"),
    ("lists in lists", f"{{ trainingRuns(status: {'[' * 1_000}QUEUED{']' * 1_000}) {{ totalCount }} }}", "TOO_DEEP"),
    ("10,000 arguments", f"{{ node({numbered(10_000, 'a#: 1')}) {{ id }} }}", "TOO_LONG"),
    ("a list of 10,000", f"{{ trainingRuns(status: [{'QUEUED ' * 10_000}]) {{ totalCount }} }}", "TOO_LONG"),
    ("two megabytes of nothing", "{ me" + " " * 1_900_000 + "{ id } }", "TOO_LONG"),
    ("40,000 comments", "#\n" * 40_000 + "{ me { id } }", "TOO_LONG"),
    ("4,990 unknown fields", f"{{ me {{ {numbered(4_990, 'x#')} }} }}", "TOO_LONG"),
    ("a circular introspection", f"{{ __schema {{ types {{ {CIRCULAR} }} }} }}", "TOO_DEEP"),
    (
        "introspection of subtypes in circles",
        "{ __schema { types { possibleTypes { interfaces { possibleTypes { name } } } } } }",
        "TOO_DEEP",
    ),
]
"""Each with the code that it is refused with."""
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("arguments", f"{{ node({numbered(900, 'a#: 1')}) {{ id }} }}", {}),
    ("unknown fields", f"{{ me {{ {numbered(2_900, 'x#')} }} }}", {}),
    ("literals", f"{{ trainingRuns(status: [{'X ' * 2_900}]) {{ totalCount }} }}", {}),
    (
        "values",
        "query ($s: [JobStatus!]) { trainingRuns(status: $s) { totalCount } }",
        {"s": ["X"] * 9_000},
    ),
    ("doubled and empty", "{ ...F0 } " + chain(20, "...F# ...F#", "...Nothing"), {}),
    ("repeats", "{ " + "me { memberships { organization { members { user { id email } } } } } " * 20 + "x }", {}),
    (
        "fragments",
        "{ me { x "
        + numbered(50, "...F#")
        + " } } "
        + numbered(50, "fragment F# on User { f#: id email memberships { role } }"),
        {},
    ),
]
"""Within the limits: what is wrong with them is found in validation."""
