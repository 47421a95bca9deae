"""What clients ask: four of five requests read. Nothing of the platform is imported, because the load has an environment of its own.

Nobody logs in: a login is a quarter of a second of bcrypt, on purpose, and happens a few times a day. Sessions go on by
refreshToken, as they do in a browser that stays open, and programs have keys.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

RUN = """
query ($id: ID!) { trainingRun(id: $id) {
  id name status errorCode createdAt startedAt finishedAt step totalSteps loss evalLoss organization { id }
  datasetVersion { number dataset { name } } adapter { id name version digest }
} }"""
RUNS = """
query ($after: String) { trainingRuns(first: 20, after: $after) {
  totalCount pageInfo { hasNextPage endCursor }
  edges { node { id name status step totalSteps loss createdAt organization { id } datasetVersion { number dataset { name } } } }
} }"""
EVENTS = """
query ($id: ID!) { trainingRun(id: $id) {
  id organization { id } events(first: 50) { __typename sequence at ... on StepLogged { step loss } }
} }"""
DATASETS = """
query { datasets(first: 20) { edges { node {
  id name createdAt organization { id } latestVersion { id number status rowsKept }
} } } }"""
VERSION = """
query ($id: ID!) { datasetVersion(id: $id) {
  id number status rowsIn rowsKept recipe { format minCharacters } splits { name rows } steps { name rowsKept }
} }"""
ORGANIZATIONS = "query { organizations { id name slug } }"
REFUSED = "... on OperationInfo { messages { code message } }"
START_RUN = f"""
mutation ($input: StartTrainingRunInput!) {{ startTrainingRun(input: $input) {{
  __typename ... on TrainingRun {{ id status organization {{ id }} }} {REFUSED}
}} }}"""
CANCEL_RUN = f"""
mutation ($id: ID!) {{ cancelTrainingRun(id: $id) {{ __typename ... on TrainingRun {{ id status }} {REFUSED} }} }}"""
CREATE_DATASET = f"""
mutation ($input: CreateDatasetInput!) {{ createDataset(input: $input) {{
  __typename ... on DatasetVersion {{ id status }} {REFUSED}
}} }}"""
PROCESS_DATASET = f"""
mutation ($input: ProcessDatasetInput!) {{ processDataset(input: $input) {{
  __typename ... on DatasetVersion {{ id status }} {REFUSED}
}} }}"""
REFRESH = f"""
mutation ($input: RefreshTokenInput!) {{ refreshToken(input: $input) {{
  __typename ... on Session {{ accessToken refreshToken }} {REFUSED}
}} }}"""

# The stand-in trainer does what a run's name says: twenty steps of a twentieth of a second.
RUN_NAME, RUN_CONFIG = "plain 50 ms", {"maxSteps": 20}
WAITING_RUNS = 10  # that were started and not yet cancelled: then the oldest is; a worker takes some before that
NEW_VERSION_EVERY = 100  # requests for a version; the others ask for one that there is


@dataclass(frozen=True)
class Asked:
    """One request: `problem` says what is wrong with an answer's data, if anything is."""

    operation: str
    document: str
    variables: dict[str, Any]
    problem: Callable[[Any], str | None]
    is_write: bool = False


@dataclass
class Tenant:
    """What its clients know of it, by global ids."""

    organization: str
    runs: list[str]
    dataset: str
    version: str
    upload: str
    last_cursor: str | None = None


@dataclass
class Mix:
    """What is asked next, by whom: the same seed gives the same requests, as far as the platform gives the same answers."""

    seed: int
    tenants: list[Tenant]
    _started: deque[tuple[int, str]] = field(default_factory=deque)
    _versions: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(self) -> tuple[int, Asked]:
        """The tenant's number, and what one of its clients asks."""
        number = self._random.randrange(len(self.tenants))
        kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "change_run" and len(self._started) >= WAITING_RUNS:
            number, run = self._started.popleft()
            return number, self._cancel(run)
        return number, getattr(self, f"_{kind}")(number, self.tenants[number])

    def started(self, number: int, run: str) -> None:
        """A run that some client will cancel."""
        self._started.append((number, run))

    def _run(self, _: int, tenant: Tenant) -> Asked:
        run = self._random.choice(tenant.runs)
        return Asked("trainingRun", RUN, {"id": run}, _is(run, tenant.organization))

    def _events(self, _: int, tenant: Tenant) -> Asked:
        run = self._random.choice(tenant.runs)
        return Asked("trainingRun.events", EVENTS, {"id": run}, _is(run, tenant.organization))

    def _runs(self, _: int, tenant: Tenant) -> Asked:
        return Asked("trainingRuns", RUNS, {}, self._noting_cursor(tenant))

    def _more_runs(self, _: int, tenant: Tenant) -> Asked:
        return Asked("trainingRuns, next", RUNS, {"after": tenant.last_cursor}, self._noting_cursor(tenant))

    def _datasets(self, _: int, tenant: Tenant) -> Asked:
        return Asked("datasets", DATASETS, {}, _all_of(tenant.organization))

    def _version(self, _: int, tenant: Tenant) -> Asked:
        return Asked("datasetVersion", VERSION, {"id": tenant.version}, _is(tenant.version))

    def _organizations(self, _: int, tenant: Tenant) -> Asked:
        def problem(found: Any) -> str | None:
            return None if [each["id"] for each in found] == [tenant.organization] else "other organizations"

        return Asked("organizations", ORGANIZATIONS, {}, problem)

    def _change_run(self, number: int, tenant: Tenant) -> Asked:
        def problem(run: Any) -> str | None:
            if run.get("__typename") != "TrainingRun":
                return _refusal(run)
            self.started(number, run["id"])
            return None

        wanted = {"datasetVersionId": tenant.version, "name": RUN_NAME, "config": RUN_CONFIG}
        return Asked("startTrainingRun", START_RUN, {"input": wanted}, problem, is_write=True)

    def _cancel(self, run: str) -> Asked:
        return Asked("cancelTrainingRun", CANCEL_RUN, {"id": run}, _done, is_write=True)

    def _new_dataset(self, _: int, tenant: Tenant) -> Asked:
        wanted = {"name": "Functions", "uploadId": tenant.upload, "recipe": self._recipe()}
        return Asked("createDataset", CREATE_DATASET, {"input": wanted}, _done, is_write=True)

    def _new_version(self, _: int, tenant: Tenant) -> Asked:
        wanted = {"datasetId": tenant.dataset, "uploadId": tenant.upload, "recipe": self._recipe()}
        return Asked("processDataset", PROCESS_DATASET, {"input": wanted}, _done, is_write=True)

    def _recipe(self) -> dict[str, Any]:
        self._versions += 1
        new = self._versions % NEW_VERSION_EVERY == 0
        return {"maxCharacters": 100_000 + self._versions} if new else {}

    def _noting_cursor(self, tenant: Tenant) -> Callable[[Any], str | None]:
        def problem(page: Any) -> str | None:
            tenant.last_cursor = page["pageInfo"]["endCursor"] if page["pageInfo"]["hasNextPage"] else None
            return _all_of(tenant.organization)(page)

        return problem


WEIGHTS = {
    "run": 25,
    "runs": 20,
    "more_runs": 8,
    "events": 8,
    "datasets": 8,
    "version": 6,
    "organizations": 5,
    "change_run": 16,
    "new_dataset": 2,
    "new_version": 2,
}


def refresh(token: str) -> Asked:
    return Asked("refreshToken", REFRESH, {"input": {"refreshToken": token}}, _done, is_write=True)


def answered(asked: Asked, status: int, body: Any) -> str | None:
    """What is wrong with an answer; None where it is what was asked for."""
    if status != 200:
        return f"HTTP {status}"
    if body.get("errors"):
        return str(body["errors"][0].get("extensions", {}).get("code") or body["errors"][0]["message"])
    (value,) = body["data"].values()
    return "null" if value is None else asked.problem(value)


def _is(key: str, organization: str | None = None) -> Callable[[Any], str | None]:
    def problem(found: Any) -> str | None:
        ours = found["id"] == key and organization in (None, found.get("organization", {}).get("id"))
        return None if ours else "another row"

    return problem


def _all_of(organization: str) -> Callable[[Any], str | None]:
    def problem(page: Any) -> str | None:
        whose = {edge["node"]["organization"]["id"] for edge in page["edges"]}
        return None if whose <= {organization} and page["edges"] else f"rows of {len(whose)} organizations"

    return problem


def _done(found: Any) -> str | None:
    return _refusal(found) if found["__typename"] == "OperationInfo" else None


def _refusal(found: Any) -> str:
    return ", ".join(str(message["code"]) for message in found["messages"])
