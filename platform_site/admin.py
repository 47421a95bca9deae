"""What the admin leaves out: django-q2 is only the doorbell, so its own pages would be empty tables, and lead astray.

And what it would not find by itself: Django looks for admin.py, which in common/ holds what all apps' pages share.
"""

from __future__ import annotations

from django.contrib import admin
from django_q.models import Failure, Schedule, Success

import common.outbox_admin  # noqa: F401

for model in (Failure, Schedule, Success):
    admin.site.unregister(model)
