"""The limits of a GraphQL request. docs/api.md tells clients; docs/decisions/0017-a-cost-rule-of-our-own.md says why."""

from __future__ import annotations

from dataclasses import dataclass

from common.graphql import MAX_PAGE
from common.graphql_jobs import MAX_EVENTS


@dataclass(frozen=True)
class Allowed:
    """What an operation, the fragments that it spreads included, may come to."""

    characters: int = 100_000
    """Of a document. A prompt may stand in it, though variables are the better place."""

    tokens: int = 3_000
    """Of a document, comments included. To parse a thousand takes about ten milliseconds."""

    definitions: int = 60
    """Operations and fragments in a document. Each pair of fragments may have to be compared."""

    depth: int = 25
    """Selection sets inside each other, of fields and fragments alike. GraphiQL's introspection has 18."""

    aliases: int = 50

    root_fields: int = 20
    """Of a query: each is a look-up of its own."""

    mutations: int = 10
    """Root fields of a mutation: each is an attempt, at a login say, and runs to its end before the next."""

    directives: int = 50

    directives_each: int = 5
    """At one place."""

    repeats: int = 20
    """Times that one place in the answer is asked for: validation compares each pair. A union of 20 types is enough."""

    introspection_lists: int = 2
    """Lists of types or fields inside each other: the types and their fields, but not the fields of their types."""

    cost: int = 50_000
    """Fields in the answer at most, pages taken as full: about half a second's work."""

    page: int = MAX_PAGE
    """Items of a connection that does not say how many, and at most."""

    events: int = MAX_EVENTS
    """Items of a list that is no connection, at most."""

    items: int = 10
    """Items of a list that cannot be told how many, a user's memberships say. Few have more."""

    curve: int = 500
    """What a curve takes at least, in fields: of how many points those few are chosen is not known."""

    points: int = 10
    """Of a curve, that take what a field does."""

    curves: int = 6
    """Of a run, where nobody says which."""

    prediction: int = 500
    """What a prediction takes at least, in fields: a document may have a batch made, and some beside it, but not two."""

    batch: int = 64
    """Predictions of a batch, where nobody can say how many, and at most."""

    answer_fields: int = 100_000
    """In the answer as it turns out: a list that cannot be told how many may hold more than `items`, one inside the other."""

    values: int = 10_000
    """In the variables, the values in lists and objects counted one by one."""

    answer_bytes: int = 16_000_000
    """Of the whole answer as JSON. Lists are capped one by one, but texts are of any length."""
