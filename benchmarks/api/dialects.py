"""How each contender is asked for the same things, and what of its answer is the same."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from strawberry import relay

_LISTED = """
id name status createdAt step totalSteps loss evalLoss createdBy { email } datasetVersion { number dataset { name } }
"""
_ONE = f"{_LISTED} errorCode adapter {{ id name version digest sizeBytes testLoss baseTestLoss }}"
RUN = f"query ($id: ID!) {{ trainingRun(id: $id) {{ {_ONE} }} }}"
RUNS = f"""
query ($first: Int, $last: Int, $after: String, $before: String) {{
  trainingRuns(first: $first, last: $last, after: $after, before: $before) {{ edges {{ cursor node {{ {_LISTED} }} }} }}
}}"""
STOCK_RUN = f"query ($id: ID!) {{ run(id: $id) {{ {_ONE} }} }}"
STOCK_RUNS = f"query ($page: OffsetPaginationInput!) {{ runs(pagination: $page) {{ {_LISTED} }} }}"

Request = tuple[str, str, bytes]  # method, path with its query, body


class Dialect(ABC):
    """`urls` is the module with the contender's addresses."""

    urls: str
    sees_all_rows = True  # whether it goes without row level security, as a project by the book does

    @abstractmethod
    def one(self, key: str) -> Request: ...

    @abstractmethod
    def first_page(self, size: int) -> Request: ...

    @abstractmethod
    def last_page(self, size: int, total: int) -> Request: ...

    @abstractmethod
    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """What was answered, as it is."""


class PlatformDialect(Dialect):
    urls = "platform_site.urls"
    sees_all_rows = False

    def one(self, key: str) -> Request:
        return _graphql(RUN, id=relay.to_base64("TrainingRun", key))

    def first_page(self, size: int) -> Request:
        return _graphql(RUNS, first=size)

    def last_page(self, size: int, total: int) -> Request:
        return _graphql(RUNS, last=size)

    def page_after(self, size: int, cursor: str) -> Request:
        return _graphql(RUNS, first=size, after=cursor)

    def row_before(self, cursor: str) -> Request:
        return _graphql(RUNS, last=1, before=cursor)

    def first_cursor(self, answer: Any) -> str:
        return str(answer["data"]["trainingRuns"]["edges"][0]["cursor"])

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        run = answer["data"].get("trainingRun")
        return [run] if run else [edge["node"] for edge in answer["data"]["trainingRuns"]["edges"]]


class StockDialect(Dialect):
    urls = "benchmarks.api.stock"

    def one(self, key: str) -> Request:
        return _graphql(STOCK_RUN, id=relay.to_base64("StockRun", key))

    def first_page(self, size: int) -> Request:
        return _graphql(STOCK_RUNS, page={"offset": 0, "limit": size})

    def last_page(self, size: int, total: int) -> Request:
        return _graphql(STOCK_RUNS, page={"offset": total - size, "limit": size})

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        run = answer["data"].get("run")
        return [run] if run else answer["data"]["runs"]


class RestDialect(Dialect):
    urls = "benchmarks.api.rest"

    def one(self, key: str) -> Request:
        return "GET", f"/runs/{key}/", b""

    def first_page(self, size: int) -> Request:
        return "GET", f"/runs/?{urlencode({'size': size})}", b""

    def last_page(self, size: int, total: int) -> Request:
        return "GET", f"/runs/?{urlencode({'size': size, 'cursor': b64encode(b'r=1').decode()})}", b""

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        return answer.get("results", [answer])


DIALECTS: dict[str, type[Dialect]] = {"platform": PlatformDialect, "strawberry": StockDialect, "drf": RestDialect}


def normalised(value: Any, name: str = "") -> Any:
    """Without what each contender has its own way to say: ids and times."""
    if isinstance(value, dict):
        return {inner: normalised(each, inner) for inner, each in sorted(value.items())}
    if isinstance(value, list):
        return [normalised(each) for each in value]
    if name == "id" and "-" not in value:
        return relay.from_base64(value)[1]
    return datetime.fromisoformat(value).timestamp() if name == "createdAt" else value


def _graphql(document: str, **variables: Any) -> Request:
    return "POST", "/graphql", json.dumps({"query": document, "variables": variables}).encode()
