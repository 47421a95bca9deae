"""The two roles that everything but migrations runs as, and what they may do with tables made before and after."""

from django.db import migrations

ROLES = """
DO $$ BEGIN
    -- roles belong to the server, not to the database: another installation on it may have made them, or be just making them
    BEGIN CREATE ROLE platform_app NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    BEGIN CREATE ROLE platform_operator NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
END $$;
-- INHERIT FALSE: the app role gets the operator's rows only by asking, with SET LOCAL ROLE
GRANT platform_operator TO platform_app WITH INHERIT FALSE, SET TRUE;
GRANT platform_app, platform_operator TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO platform_app, platform_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO platform_app, platform_operator;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO platform_app, platform_operator;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO platform_app, platform_operator;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO platform_app, platform_operator;
"""


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []
    operations = [migrations.RunSQL(ROLES, migrations.RunSQL.noop)]
