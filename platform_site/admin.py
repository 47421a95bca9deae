"""What the admin leaves out: django-q2 is only the doorbell, so its own pages would be empty tables, and lead astray."""

from __future__ import annotations

from django.contrib import admin
from django_q.models import Failure, Schedule, Success

for model in (Failure, Schedule, Success):
    admin.site.unregister(model)
