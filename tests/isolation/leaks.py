"""Leaks, one by one, each with the check that has to find it, and what that says.

Where one layer covers for another, the leak is looked at with the other taken away, or by the layer's own check.
"""

from __future__ import annotations

from django.contrib import admin

from accounts import models as accounts
from accounts import permissions
from accounts.models import Membership
from common import graphql
from common.events import JobEvent
from common.tenancy import TenantQuerySet
from datasets import actions as datasets_actions
from datasets import links, signed_links
from datasets import schema as datasets_schema
from datasets.download import route as download
from datasets.models import Dataset
from datasets.receive import arrival
from inference import schema as inference_schema
from platform_site import schema as merged
from platform_site.v1 import generation, listing
from tests.isolation import layers, mistakes, urls, v1
from tests.isolation.absent_ids import absent_thoroughly
from tests.isolation.leak import Leak, both, foreign, foreign_name, in_modules, nothing, own, replaced, resolving, walk
from training import schema as training_schema
from training.models import TrainingRun

LEAKS = [
    # QuerySets
    Leak(
        "rows of every organization are visible to everybody",
        replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
        layers.check_querysets,
        r"TrainingRun.visible_to\(owner\)",
    ),
    Leak(
        "organizations are visible to everybody",
        replaced(accounts.OrganizationQuerySet, "visible_to", mistakes.all_of_them),
        layers.check_querysets,
        r"Organization.visible_to\(owner\)",
    ),
    Leak(
        "people are visible to everybody, whom row level security does not hold",
        replaced(accounts.UserManager, "visible_to", mistakes.all_of_them),
        foreign("node(id)", ids=absent_thoroughly),
        r"node\(id\) as owner: 'VXNlcj.*colleague@qztheirs",
    ),
    Leak(
        "API keys are visible to every member",
        replaced(accounts.ApiKeyQuerySet, "visible_to", mistakes.with_any_role),
        layers.check_querysets,
        r"ApiKey.visible_to\(viewer\)",
    ),
    Leak(
        "the audit log is visible to every member",
        replaced(accounts.AuditQuerySet, "visible_to", mistakes.with_any_role),
        layers.check_querysets,
        r"AuditEntry.visible_to\(member\)",
    ),
    Leak(
        "whatever is asked, all organizations permit it",
        replaced(accounts, "organizations_that_permit", lambda principal, permission: list(principal.roles)),
        layers.check_querysets,
        r"ApiKey.visible_to\(viewer\)",
    ),
    Leak(
        "lists are of everybody's",
        replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
        walk("datasets", hops=0),
        "datasets as owner leads to qztheirs's",
        bare=True,
    ),
    # actions
    *(
        Leak(
            f"{module} does not authorize {name}",
            in_modules(word, mistakes.unasked, module),
            own(kind, name, asker),
            rf"{name} as {asker} should be refused with NOT_ALLOWED",
        )
        for module, word, kind, name, asker in [
            ("datasets.actions", "authorize", "mutation", "startUpload", "viewer"),
            ("training.actions", "authorize", "mutation", "startTrainingRun", "viewer"),
            ("training.actions", "authorize", "mutation", "promoteAdapter", "key of viewer"),
            ("inference.actions", "authorize", "mutation", "predict", "key of viewer"),
            ("accounts.actions.keys", "authorize", "mutation", "createApiKey", "member"),
            ("accounts.actions.organizations", "authorize", "mutation", "inviteMember", "member"),
            ("accounts.organizations_schema", "authorize_look", "query", "apiKeys", "viewer"),
            ("accounts.organizations_schema", "authorize_look", "query", "auditLog", "member"),
        ]
    ),
    Leak(
        "a role in one organization counts in all",
        replaced(permissions, "authorize", mistakes.of_any_role),
        layers.check_authorization,
        "UPLOAD at qztheirs's as owner: None",
    ),
    Leak(
        "a key may do what only people may",
        replaced(permissions, "FOR_PEOPLE", frozenset()),
        own("mutation", "createApiKey", "key of owner"),
        "createApiKey as key of owner should be refused",
    ),
    Leak(
        "a mutation neither looks who may see nor authorizes",
        both(
            replaced(training_schema, "resolve", mistakes.whoever_asks),
            in_modules("authorize", mistakes.unasked, "training.actions"),
        ),
        foreign("cancelTrainingRun(id)"),
        r"cancelTrainingRun\(id\) as owner",
        bare=True,
    ),
    Leak(
        "adapters answer whoever asks",
        both(
            replaced(inference_schema, "resolve", mistakes.whoever_asks),
            in_modules("authorize", mistakes.unasked, "inference.actions"),
        ),
        foreign("predict(input.adapterId)"),
        "INFERENCE_UNAVAILABLE",
        bare=True,
    ),
    Leak(
        "adapters answer whoever asks for several at once",
        both(
            replaced(inference_schema, "resolve", mistakes.whoever_asks),
            in_modules("authorize", mistakes.unasked, "inference.actions"),
        ),
        foreign("predictBatch(input.requests.adapterId)"),
        "INFERENCE_UNAVAILABLE",
        bare=True,
    ),
    Leak(
        "an adapter's name is looked for among everybody's",
        both(
            replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
            in_modules("authorize", mistakes.unasked, "inference.actions"),
        ),
        foreign_name("predict(input.model)"),
        r"predict\(input.model\) as owner: 'qztheirs run:1'.*INFERENCE_UNAVAILABLE",
        bare=True,
    ),
    Leak(
        "the same bytes as another's give the other's version",
        replaced(datasets_actions, "_finished", mistakes.found_by_its_bytes),
        own("mutation", "createDataset", "owner"),
        "createDataset as owner tells of qztheirs",
        bare=True,
    ),
    # ids
    Leak(
        "a look-up forgets who is asking",
        replaced(graphql, "resolve", mistakes.whoever_asks),
        foreign("organization(id)", "viewer"),
        r"organization\(id\) as viewer: .*qztheirs Ltd",
        bare=True,
    ),
    Leak(
        "a field that returns a query forgets who is asking",
        replaced(datasets_schema, "sought", mistakes.whoever_asks),
        foreign("dataset(id)", "viewer"),
        r"dataset\(id\) as viewer: .*qztheirs snippets",
        bare=True,
    ),
    Leak(
        "whoever's version is compared",
        replaced(datasets_schema, "sought", mistakes.a_query_of_any),
        foreign("datasetVersionDiff(b)"),
        r"datasetVersionDiff\(b\) as owner: .*DIFFERENT_ORGANIZATIONS",
        bare=True,
    ),
    Leak(
        "node() forgets who is asking",
        replaced(merged, "resolve_or_null", mistakes.or_null),
        foreign("node(id)", "key of viewer", ids=absent_thoroughly),
        r"node\(id\) as key of viewer: 'VXNlcj.*colleague@qztheirs",
    ),
    Leak(
        "what is another's is told from what never existed",
        replaced(graphql, "resolve", mistakes.and_says_whose),
        foreign("organization(id)"),
        "This belongs to another organization",
        bare=True,
    ),
    Leak(
        "an id that is none is told from one that never existed",
        in_modules("model_id", mistakes.particular, "common.graphql"),
        foreign("upload(id)"),
        "This is no id",
    ),
    Leak(
        "an id of another type is as good",
        in_modules("model_id", mistakes.of_any_type, "common.graphql"),
        foreign("upload(id)", ids=absent_thoroughly),
        r"upload\(id\) as owner: .*qzours.jsonl",
    ),
    Leak(
        "the number of all rows is told",
        resolving("DatasetConnection", "totalCount", lambda page, info: Dataset.objects.count()),
        foreign("datasets(organizationId)"),
        '"totalCount": 2',
        bare=True,
    ),
    # ways through the schema
    Leak(
        "an organization's members are everybody's",
        resolving("Organization", "members", lambda row, info: list(Membership.objects.all())),
        walk("organization", hops=2),
        "organization.members.user as owner leads to qztheirs's",
        bare=True,
    ),
    Leak(
        "a job's events are all jobs'",
        replaced(JobEvent, "page", mistakes.page_of_all_jobs),
        walk("datasetVersion", hops=1),
        "datasetVersion.events as owner leads to qztheirs's",
        bare=True,
    ),
    Leak(
        "an adapter's run is any run",
        resolving(
            "Adapter", "trainingRun", lambda row, info: TrainingRun.objects.exclude(pk=row.training_run_id).get()
        ),
        walk("adapter", hops=1),
        "adapter.trainingRun as owner leads to qztheirs's",
        bare=True,
    ),
    # whoever asks
    Leak(
        "a key's role is ignored",
        mistakes.seen_as(mistakes.with_keys_as_owners),
        own("mutation", "startTrainingRun", "key of viewer"),
        "startTrainingRun as key of viewer should be refused with NOT_ALLOWED",
    ),
    Leak(
        "roles are remembered after a removal",
        mistakes.seen_as(mistakes.as_they_were),
        foreign("organization(id)", "removed"),
        r"organization\(id\) as removed: .*qzours Ltd",
    ),
    Leak(
        "nobody is taken for somebody",
        mistakes.with_everybody_somebody,
        own("query", "datasets", "anonymous"),
        "datasets as anonymous",
    ),
    # subscriptions
    Leak(
        "a subscription does not look who may see the job",
        replaced(training_schema, "follow", mistakes.follow_any),
        foreign("trainingRunEvents(id)"),
        r"trainingRunEvents\(id\) as owner",
    ),
    Leak(
        "a stream is generated for whoever asks",
        replaced(inference_schema, "permit_for", mistakes.permit_for_anybody),
        foreign("generate(input.adapterId)"),
        "INFERENCE_UNAVAILABLE",
    ),
    # addresses
    Leak(
        "a ticket for another's upload is taken",
        replaced(arrival, "organizations_scope", mistakes.everybodys),
        urls.check_uploads,
        "a ticket of ours for an upload of theirs as outsider: 400",
    ),
    Leak(
        "any ticket is taken",
        mistakes.any_ticket,
        urls.check_uploads,
        "a ticket signed for something else as anonymous: 400",
    ),
    Leak(
        "a link to another's rows is followed",
        replaced(download, "organizations_scope", mistakes.everybodys),
        urls.check_downloads,
        "a link of ours for a version of theirs as outsider: 200",
    ),
    Leak(
        "any link is followed",
        replaced(signed_links, "_salt", lambda purpose: "x"),
        urls.check_downloads,
        "a link signed for something else as anonymous: 200",
    ),
    Leak(
        "any file is sent to whoever names it",
        replaced(links, "_SALT", "x"),
        urls.check_files,
        "a link signed for something else as anonymous: 200",
    ),
    Leak(
        "/v1 lists everybody's models",
        both(
            replaced(listing, "reading", mistakes.everybodys),
            replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
        ),
        lambda world: v1.check_lists(world, "owner"),
        "/v1/models as owner: .*qztheirs run:1",
    ),
    Leak(
        "/v1 tells of anybody's model",
        both(
            replaced(listing, "reading", mistakes.everybodys),
            replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
        ),
        lambda world: v1.check_foreign(world, "owner"),
        "/v1/models/ as owner: 'qztheirs run:1' is answered 200",
    ),
    Leak(
        "/v1 has anybody's adapter answer",
        both(
            replaced(generation, "tenant", mistakes.everybodys),
            replaced(TenantQuerySet, "visible_to", mistakes.all_of_them),
            in_modules("authorize", mistakes.unasked, "inference.actions"),
        ),
        lambda world: v1.check_foreign(world, "owner"),
        "/v1/chat/completions as owner: 'qztheirs run:1' is answered 503 .*INFERENCE_UNAVAILABLE",
    ),
    Leak(
        "/v1 does not authorize completions",
        in_modules("authorize", mistakes.unasked, "inference.actions"),
        lambda world: v1.check_own(world, "key of viewer"),
        "/v1/completions as key of viewer should be 403: 503",
    ),
    Leak(
        "/v1 remembers roles after a removal",
        mistakes.seen_as(mistakes.as_they_were),
        lambda world: v1.check_foreign(world, "removed"),
        "/v1/completions as removed: 'qzours run:1' is answered 503",
    ),
    Leak(
        "/v1 takes nobody for somebody",
        mistakes.with_everybody_somebody,
        lambda world: v1.check_lists(world, "anonymous"),
        "/v1/models as anonymous: 200",
    ),
    Leak(
        "the admin is for everybody who is signed in",
        replaced(admin.site, "has_permission", lambda request: request.user.is_authenticated),
        lambda world: urls.check_admin(world, below="admin/accounts/user/"),
        "/admin/accounts/user/ as a session: ",
    ),
    # row level security
    *(
        Leak(
            f"a policy shows all of {table}",
            nothing,
            layers.check_row_level_security,
            f"{table}: qztheirs's rows are there for qzours",
            statements=mistakes.policy(table, "USING (true)"),
        )
        for table in ("datasets_dataset", "accounts_membership", "accounts_auditentry")
    ),
    Leak(
        "a policy lets anything be written",
        nothing,
        layers.check_row_level_security,
        "datasets_upload: INSERT by qzours makes rows of qztheirs's",
        statements=mistakes.policy("datasets_upload", "WITH CHECK (true)"),
    ),
    Leak(
        "a table is not protected",
        nothing,
        layers.check_row_level_security,
        "training_adapter: DELETE by qztheirs reaches 1 of qzours's",
        statements=("ALTER TABLE training_adapter DISABLE ROW LEVEL SECURITY",),
    ),
    *(
        Leak(
            f"{table}.{column} may refer to another's",
            nothing,
            layers.check_references,
            f"{table}.{column} can be made to refer to another's",
            statements=mistakes.without_reference(table, column),
        )
        for table, column in [("datasets_datasetversion", "upload_id"), ("training_trainingrun", "dataset_version_id")]
    ),
]
