"""An operator's buttons beside adapters: the same verbs as the API's, by somebody of no organization."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import action, display

from common.admin import ReadOnlyAdmin
from common.confirming import confirmed
from common.errors import DomainError
from training import stages
from training.models import Adapter, AdapterStage

COLOURS: dict[str, str] = {
    AdapterStage.CANDIDATE: "info",
    AdapterStage.PRODUCTION: "success",
    AdapterStage.ARCHIVED: "warning",
}


class StageButtons(ReadOnlyAdmin):
    actions = ["promote", "promote_anyway", "archive"]

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    @display(description="Stage", ordering="stage", label=COLOURS)
    def shown_stage(self, adapter: Adapter) -> tuple[str, str]:
        return adapter.stage, str(AdapterStage(adapter.stage).label)

    @action(description="Promote", permissions=["operate"])
    @confirmed(
        "Put these adapters into production? Each takes the place of the one of its name that is there, unless it was measured to be worse, "
        "or not measured beside it."
    )
    def promote(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._each(request, queryset, lambda adapter, by: stages.promote(adapter, by=by, force=False), "in production")

    @action(description="Promote whatever was measured", permissions=["operate"])
    @confirmed(
        "Put these adapters into production, be they worse than those that are there, or not compared with them?"
    )
    def promote_anyway(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._each(request, queryset, lambda adapter, by: stages.promote(adapter, by=by, force=True), "in production")

    @action(description="Archive", permissions=["operate"])
    @confirmed("Archive these adapters? Nobody can ask them until they are promoted.")
    def archive(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._each(request, queryset, lambda adapter, by: stages.archive(adapter, by=by), "archived")

    def _each(
        self, request: HttpRequest, adapters: QuerySet[Adapter], act: Callable[[Adapter, str], Adapter], done: str
    ) -> None:
        """Each by itself, those of one name from the oldest on, and say what became of which."""
        told: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        for adapter in adapters.order_by("organization_id", "name", "version"):
            try:
                with transaction.atomic():
                    act(adapter, f"user:{request.user.pk}")
                self.log_change(request, adapter, done)
                became: tuple[int, str] = messages.SUCCESS, f"{done}."
            except DomainError as refusal:
                became = messages.WARNING, refusal.message
            told[became].append(str(adapter))
        for (level, text), names in told.items():
            self.message_user(request, f"{', '.join(names)}: {text}", level)
