from django.db import migrations

from common.row_security import ProtectTable


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("common", "0001_roles")]
    operations = [ProtectTable("accounts_organization", "id"), ProtectTable("accounts_membership")]
