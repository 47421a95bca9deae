from django.db import migrations

from common.row_security import ProtectTable, TenantForeignKey


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial"), ("datasets", "0002_tenancy"), ("common", "0001_roles")]
    operations = [
        ProtectTable("training_trainingrun"),
        ProtectTable("training_trainingrunevent"),
        ProtectTable("training_adapter"),
        TenantForeignKey("training_trainingrun", "dataset_version_id", "datasets_datasetversion"),
        TenantForeignKey("training_trainingrunevent", "job_id", "training_trainingrun"),
        TenantForeignKey("training_adapter", "training_run_id", "training_trainingrun"),
    ]
