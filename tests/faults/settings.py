"""The platform's settings, with what the fault tests look through: names of forked processes, a stand-in trainer."""

from platform_site.settings import *  # noqa: F403
from platform_site.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.apps.Faults"]
# bcrypt's 12 rounds cost a quarter of a second for each person who signs up
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
