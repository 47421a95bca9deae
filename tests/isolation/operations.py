"""Who may use each operation of the API, one line each. What is not in this table fails the tests of this package.

An operation's ids are found in the schema, and filled by their names; the table says the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from accounts.permissions import Permission
from tests.isolation.askers import Asker


class Who(Enum):
    EVERYBODY = "whoever comes"
    SIGNED_IN = "people and keys, of whatever organization, or of none"
    PEOPLE = "whoever is signed in, and is no key"
    MEMBERS = "whoever belongs to the organization"


@dataclass(frozen=True)
class Operation:
    """`answers` is the code that an allowed call gets here, None for success."""

    who: Who | Permission
    id_is_of: str | None
    answers: str | None
    arguments: dict[str, Any]

    def admits(self, asker: Asker) -> bool:
        if isinstance(self.who, Permission):
            return asker.may(self.who)
        return {
            Who.EVERYBODY: True,
            Who.SIGNED_IN: not asker.is_anonymous,
            Who.PEOPLE: not asker.is_anonymous and not asker.is_key,
            Who.MEMBERS: asker.home is not None,
        }[self.who]


def open_to(who: Who | Permission, id: str | None = None, answers: str | None = None, **arguments: Any) -> Operation:
    """`id` is the kind of node that an argument of this name takes; `arguments` are those that are no ids."""
    return Operation(who, id, answers, arguments)


OPERATIONS = {
    "me": open_to(Who.SIGNED_IN),
    "organization": open_to(Who.MEMBERS, id="Organization"),
    "organizations": open_to(Who.SIGNED_IN),
    "apiKeys": open_to(Permission.MANAGE_KEYS),
    "auditLog": open_to(Permission.READ_AUDIT_LOG),
    "dataset": open_to(Who.MEMBERS, id="Dataset"),
    "upload": open_to(Who.MEMBERS, id="Upload"),
    "datasetVersion": open_to(Who.MEMBERS, id="DatasetVersion"),
    "datasetVersionDiff": open_to(Who.MEMBERS, id="DatasetVersion"),
    "datasets": open_to(Who.MEMBERS),
    "baseModels": open_to(Who.SIGNED_IN),
    "compareRuns": open_to(Who.MEMBERS, id="TrainingRun"),
    "trainingRun": open_to(Who.MEMBERS, id="TrainingRun"),
    "trainingRuns": open_to(Who.MEMBERS),
    "adapter": open_to(Who.MEMBERS, id="Adapter"),
    "adapters": open_to(Who.MEMBERS),
    "node": open_to(Who.MEMBERS, id="Dataset"),
    #
    "signup": open_to(Who.EVERYBODY, email="new@example.com", password="a long enough password"),
    "verifyEmail": open_to(Who.EVERYBODY, answers="INVALID_TOKEN", token="x"),
    "login": open_to(Who.EVERYBODY, answers="WRONG_CREDENTIALS", email="nobody@example.com", password="x"),
    "refreshToken": open_to(Who.EVERYBODY, answers="INVALID_TOKEN", refreshToken="x"),
    "logout": open_to(Who.EVERYBODY, refreshToken="x"),
    "changePassword": open_to(Who.PEOPLE, answers="WRONG_CREDENTIALS", currentPassword="x", newPassword="y"),
    "requestPasswordReset": open_to(Who.EVERYBODY, email="nobody@example.com"),
    "resetPassword": open_to(Who.EVERYBODY, answers="INVALID_TOKEN", token="x", newPassword="y"),
    "inviteMember": open_to(Permission.MANAGE_MEMBERS, email="new@example.com"),
    "acceptInvitation": open_to(Who.PEOPLE, answers="INVALID_TOKEN", token="x"),
    "changeMemberRole": open_to(Permission.MANAGE_MEMBERS, role="VIEWER"),
    "removeMember": open_to(Permission.MANAGE_MEMBERS),
    "createApiKey": open_to(Permission.MANAGE_KEYS, name="new"),
    "withdrawInvitation": open_to(Permission.MANAGE_MEMBERS, id="Invitation"),
    "deleteAccount": open_to(Who.PEOPLE, answers="WRONG_CREDENTIALS", password="x"),
    "deleteOrganization": open_to(Permission.DELETE_ORGANIZATION, answers="WRONG_CREDENTIALS", password="x"),
    "restoreOrganization": open_to(Permission.DELETE_ORGANIZATION, answers="NOT_CLOSING"),
    "revokeApiKey": open_to(Permission.MANAGE_KEYS, id="ApiKey"),
    "startUpload": open_to(Permission.UPLOAD, fileName="new", sizeBytes=1),
    "deleteUpload": open_to(Permission.DELETE_UPLOAD, id="Upload", answers="UPLOAD_IN_USE"),
    "createDataset": open_to(Permission.PROCESS_DATASET, name="new"),
    "processDataset": open_to(Permission.PROCESS_DATASET),
    "cancelDatasetVersion": open_to(Permission.PROCESS_DATASET, id="DatasetVersion"),
    "deleteDataset": open_to(Permission.DELETE_DATASET, id="Dataset", answers="DATASET_IN_USE"),
    "startTrainingRun": open_to(Permission.START_RUN),
    "estimateTrainingRun": open_to(Permission.START_RUN, answers="ESTIMATE_PENDING"),
    "resumeTrainingRun": open_to(Permission.START_RUN, id="TrainingRun", maxSteps=7),
    "cancelTrainingRun": open_to(Permission.CANCEL_RUN, id="TrainingRun"),
    "promoteAdapter": open_to(Permission.MANAGE_ADAPTERS, id="Adapter"),
    "archiveAdapter": open_to(Permission.MANAGE_ADAPTERS, id="Adapter"),
    "predict": open_to(Permission.PREDICT, answers="INFERENCE_UNAVAILABLE", prompt="def"),
    "predictBatch": open_to(Permission.PREDICT, answers="INFERENCE_UNAVAILABLE", requests={"prompt": "def"}),
    #
    "datasetVersionEvents": open_to(Who.MEMBERS, id="DatasetVersion"),
    "trainingRunEvents": open_to(Who.MEMBERS, id="TrainingRun"),
    "generate": open_to(Permission.PREDICT, answers="INFERENCE_UNAVAILABLE", prompt="def"),
}

SEEN_BY = {
    "ApiKey": Permission.MANAGE_KEYS,
    "AuditEntry": Permission.READ_AUDIT_LOG,
    "Invitation": Permission.MANAGE_MEMBERS,
}
"""Kinds of nodes that not every member sees."""
