"""The outbox, for operators."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import localize
from unfold.decorators import action, display

from common.admin import ReadOnlyAdmin
from common.models import OutboxMessage, OutboxQuerySet, OutboxState

STATE_COLOURS = {
    OutboxState.POSTPONED: "warning",
    OutboxState.SENT: "success",
    OutboxState.FAILED: "danger",
}


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in OutboxState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        assert isinstance(queryset, OutboxQuerySet)
        state = self.value()
        return queryset.in_state(OutboxState(state)) if state and state in OutboxState else queryset


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """What was to be sent, and what became of it. Its text is its recipient's alone: it may hold a token."""

    list_display = ["created_at", "recipient", "shown_state", "since", "last_error", "event", "attempts"]
    list_filter = [StateFilter]
    search_fields = ["id", "recipient", "event", "=organization__id", "organization__name"]
    ordering = ["-created_at"]
    list_fullwidth = True
    show_full_result_count = False
    fields = [
        *("id", "kind", "organization", "event", "recipient", "subject", "created_at", "due_at", "attempts", "sent_at"),
        *("failed_at", "last_error"),
    ]
    actions = ["send_again"]

    @display(description="State", label=STATE_COLOURS)
    def shown_state(self, message: OutboxMessage) -> tuple[str, str]:
        return message.state, message.state.label

    @display(description="When", ordering="due_at")
    def since(self, message: OutboxMessage) -> str:
        ended = message.sent_at or message.failed_at
        return localize(ended) if ended else f"next try {localize(message.due_at)}"

    @action(description="Send again now", permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: OutboxQuerySet) -> None:
        """Failed and postponed ones are tried at once; of the others none is."""
        count = queryset.send_again()
        self.message_user(request, f"{count} will be tried now.", messages.SUCCESS if count else messages.WARNING)

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("common.change_outboxmessage")
