"""Uploads on the wire, and where their bytes are sent."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import cast

import strawberry
import strawberry_django
from strawberry.scalars import JSON

from common.graphql import BigInt, ModelNode
from datasets import models
from datasets.models import UploadStatus
from datasets.tickets import url_for

strawberry.enum(UploadStatus, description="How far an upload has come.")


@strawberry.enum(description="Ways to send a file's bytes to a ticket's url.")
class UploadProtocol(Enum):
    PUT = "PUT"
    TUS = "TUS"


@strawberry_django.type(models.Upload, name="Upload", description="A file as its user sent it.")
class UploadType(ModelNode):
    file_name: str = strawberry_django.field(description="What its user calls it.")
    size_bytes: BigInt = strawberry_django.field(description="Its announced size.")
    received_bytes: BigInt = strawberry_django.field(description="How much has arrived.")
    sha256: str | None = strawberry_django.field(description="The digest of what arrived, once all has.")
    created_at: datetime = strawberry_django.field(description="When it was announced.")

    @strawberry_django.field(description="How far it has come.", only=["completed_at", "expires_at", "received_bytes"])
    def status(self) -> UploadStatus:
        return self.status  # type: ignore[return-value]


@strawberry.type(
    description="Where to send a file's bytes. Its one url takes a plain PUT, and tus 1.0 (HEAD, PATCH): it is a client's upload url."
)
class UploadTicket:
    upload: UploadType = strawberry.field(description="What the bytes will become.")
    url: str = strawberry.field(description="Send the bytes here; the address is the permission.")
    protocols: list[UploadProtocol] = strawberry.field(description="Ways to send them.")
    headers: JSON = strawberry.field(description="Headers to send along.")
    expires_at: datetime = strawberry.field(description="When the url stops working.")

    @classmethod
    def of(cls, upload: models.Upload) -> UploadTicket:
        return cls(
            upload=cast(UploadType, upload),
            url=url_for(upload),
            protocols=[UploadProtocol.PUT, UploadProtocol.TUS],
            headers=JSON({}),
            expires_at=upload.expires_at,
        )
