"""Which adapter of a name is in production. Both verbs are called in a transaction, by somebody who may, or by an operator.

One that replaces another was measured beside it: losses on different rows are no comparison.
"""

from __future__ import annotations

from typing import NamedTuple

from accounts import audit
from common.errors import Invalid
from training.models import Adapter, AdapterStage


class Losses(NamedTuple):
    """On the same rows."""

    promoted: float
    in_production: float


def promote(adapter: Adapter, *, by: str, force: bool) -> Adapter:
    """Put it into production, in the place of the one of its name that is there, which becomes a candidate again.

    One that is there already stays. Raises Invalid, unless forced: WORSE_THAN_PRODUCTION, and NOT_COMPARED where the two
    were never measured on the same rows. An archived one may come back.
    """
    adapter = _held(adapter)
    if adapter.stage == AdapterStage.PRODUCTION:
        return adapter
    found = Adapter.objects.in_production(adapter.organization_id, adapter.name)
    present: Adapter | None = found.select_for_update(no_key=True).first()
    if present is not None and not force:
        _refuse_worse(adapter, present)
    if present is not None:
        _change(present, AdapterStage.CANDIDATE)
    _change(adapter, AdapterStage.PRODUCTION)
    audit.record(
        adapter.organization_id,
        actor=by,
        action="adapter.promote",
        target=f"adapter:{adapter.pk}",
        digest=adapter.digest,
        replaced=f"adapter:{present.pk}" if present else "",
        forced=int(force),
    )
    return adapter


def archive(adapter: Adapter, *, by: str) -> Adapter:
    """Take it out of use: nobody can ask it, until it is promoted. An archived one stays. Raises Invalid ADAPTER_IN_PRODUCTION."""
    adapter = _held(adapter)
    if adapter.stage == AdapterStage.ARCHIVED:
        return adapter
    if adapter.stage == AdapterStage.PRODUCTION:
        raise Invalid(
            f"{adapter} is in production: promote another adapter of this name first, then archive this one.",
            code="ADAPTER_IN_PRODUCTION",
        )
    _change(adapter, AdapterStage.ARCHIVED)
    audit.record(
        adapter.organization_id,
        actor=by,
        action="adapter.archive",
        target=f"adapter:{adapter.pk}",
        digest=adapter.digest,
    )
    return adapter


def measured_together(promoted: Adapter, present: Adapter) -> Losses | None:
    """On the test rows of the later of the two, whose run measured the earlier one; None where neither did.

    So whoever goes back to an earlier one is told the same as whoever left it.
    """
    if promoted.production_digest == present.digest:
        mine, others = promoted.test_loss, promoted.production_test_loss
    elif present.production_digest == promoted.digest:
        mine, others = present.production_test_loss, present.test_loss
    else:
        return None
    return None if mine is None or others is None else Losses(mine, others)


def _refuse_worse(promoted: Adapter, present: Adapter) -> None:
    if promoted.digest == present.digest:
        return  # the same weights
    losses = measured_together(promoted, present)
    if losses is None:
        raise Invalid(
            f"{promoted} and {present}, which is in production, were never measured on the same rows, and losses on different "
            "rows are no comparison. A run measures what it makes beside the adapter that is in production when it begins: "
            "start one, or promote this adapter with force.",
            code="NOT_COMPARED",
        )
    if losses.promoted > losses.in_production:
        raise Invalid(
            f"{promoted} is worse than {present}, which is in production: test loss {losses.promoted:.6g} against "
            f"{losses.in_production:.6g} on the same rows. Promote it with force if you want it all the same.",
            code="WORSE_THAN_PRODUCTION",
        )


def _held(adapter: Adapter) -> Adapter:
    """As it is now, and stays until the transaction ends. The name comes first: two of one name wait for each other there."""
    Adapter.hold_name(adapter.organization_id, adapter.name)
    held: Adapter = Adapter.objects.select_for_update(no_key=True).get(pk=adapter.pk)
    return held


def _change(adapter: Adapter, stage: AdapterStage) -> None:
    changed = Adapter.objects.filter(pk=adapter.pk, stage=adapter.stage).update(stage=stage)
    assert changed == 1, "the row is held"
    adapter.stage = stage
