"""What a leak is: a mistake that lets something out, and the check that has to find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.isolation.foreign_ids import check_foreign_ids
from tests.isolation.names import check_foreign_names, name_place
from tests.isolation.own_ids import check_own
from tests.isolation.owner import changed_by_the_owner, without_row_level_security
from tests.isolation.places import TYPES, place
from tests.isolation.walk import check_walks
from tests.isolation.world import World

Patch = pytest.MonkeyPatch
Check = Callable[[World], None]


@dataclass(frozen=True)
class Leak:
    """`shows` is a pattern of what `check` says of it. `bare`: row level security is off, before and after."""

    what: str
    opened: Callable[[Patch, World], object]
    check: Check
    shows: str
    bare: bool = False
    statements: tuple[str, ...] = ()

    @contextmanager
    def bared(self) -> Iterator[None]:
        with without_row_level_security() if self.bare else ExitStack():
            yield

    @contextmanager
    def open(self, world: World) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, changed_by_the_owner(*self.statements):
            self.opened(patch, world)
            yield


# ---------------------------------------------------------------------------------------------- checks, narrowed


def foreign(where: str, asker: str = "owner", **how: Any) -> Check:
    return lambda world: check_foreign_ids(world, place(where), asker, **how)


def foreign_name(where: str, asker: str = "owner") -> Check:
    return lambda world: check_foreign_names(world, name_place(where), asker)


def own(kind: str, name: str, asker: str) -> Check:
    return lambda world: check_own(world, kind, name, asker)


def walk(root: str, hops: int, asker: str = "owner") -> Check:
    return lambda world: check_walks(world, asker, roots=[root], hops=hops)


# ---------------------------------------------------------------------------------------------- mistakes, made


def nothing(patch: Patch, world: World) -> None:
    """The statements are all."""


def replaced(target: Any, name: str, by: Any) -> Callable[[Patch, World], None]:
    return lambda patch, world: patch.setattr(target, name, by)


def in_modules(name: str, by: Any, *modules: str) -> Callable[[Patch, World], None]:
    def open_(patch: Patch, world: World) -> None:
        for module in modules:
            patch.setattr(f"{module}.{name}", by)

    return open_


def both(*opened: Callable[[Patch, World], object]) -> Callable[[Patch, World], None]:
    def open_(patch: Patch, world: World) -> None:
        for each in opened:
            each(patch, world)

    return open_


def resolving(kind: str, field: str, resolver: Callable[..., Any]) -> Callable[[Patch, World], None]:
    return lambda patch, world: patch.setattr(TYPES[kind].fields[field], "resolve", resolver)
