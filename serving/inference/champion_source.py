"""Where the API reads which champion is in force: the `champion` asset, in a Dagster instance or
behind a Dagster webserver.
"""

import datetime
import http.client
import json
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import IN_DAGSTER

if TYPE_CHECKING:
    from dagster import DagsterInstance

CHAMPION = "champion"
CONTENDERS = ("model", "candidate_model")
"""The assets that register a model."""

TIMEOUT_SECONDS = 5.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Dagster is one of the store's own services: no proxy is asked for it."""

HISTORY_LIMIT = 20
"""Materializations of an asset that are told of, at most."""

QUERY = """
query Latest($asset: AssetKeyInput!, $limit: Int!) {
  assetOrError(assetKey: $asset) {
    __typename
    ... on Asset {
      assetMaterializations(limit: $limit) {
        timestamp
        metadataEntries {
          label
          ... on TextMetadataEntry { text }
          ... on PathMetadataEntry { path }
          ... on UrlMetadataEntry { url }
          ... on FloatMetadataEntry { floatValue }
          ... on IntMetadataEntry { intValue }
          ... on JsonMetadataEntry { jsonString }
        }
      }
    }
  }
}
"""


class SourceError(RuntimeError):
    """It could not be read which champion is in force; what was known before stays in force."""


@dataclass(frozen=True)
class Materialization:
    """When an asset was materialized, UTC, and the values of its metadata."""

    at: datetime.datetime
    metadata: dict[str, Any]


@dataclass(frozen=True)
class PastRecord:
    """What was said of the champion at a moment, UTC."""

    at: datetime.datetime
    record: ChampionRecord


class Contender(BaseModel):
    """A registered model, champion or not."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_version: str
    artifact_uri: str
    bundle_sha256: str


class Source(Protocol):
    """Where materializations are."""

    def materializations(self, asset: str, limit: int) -> list[Materialization]:
        """The latest ones of an asset, the newest first.

        Args:
            asset: its key.
            limit: how many at most; not more than `HISTORY_LIMIT`.
        """


class DagsterInstanceSource:
    """A Dagster instance's event log. One materialization of the champion carries plots, and to
    read it takes some milliseconds in which this process answers nobody; so each is read once.

    Args:
        opened: opens the instance; called when it is first read, and again until it could be
            opened.
    """

    def __init__(self, opened: Callable[[], "DagsterInstance"]) -> None:
        self._opened = opened
        self._instance: DagsterInstance | None = None
        self._known: dict[str, tuple[int | None, list[Materialization]]] = {}
        self._reading = threading.Lock()

    def materializations(self, asset: str, limit: int) -> list[Materialization]:
        """The latest ones of an asset, the newest first."""
        from dagster import AssetKey, AssetRecordsFilter

        with self._reading:
            if self._instance is None:
                self._instance = self._opened()
            seen, known = self._known.get(asset, (None, []))
            new = AssetRecordsFilter(AssetKey(asset), after_storage_id=seen)
            records = self._instance.fetch_materializations(new, limit=HISTORY_LIMIT).records
            if records:
                latest = [
                    Materialization(
                        datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC),
                        {
                            name: value.value
                            for name, value in record.asset_materialization.metadata.items()
                        },
                    )
                    for record in records
                    if record.asset_materialization is not None
                ]
                known = [*latest, *known][:HISTORY_LIMIT]
                self._known[asset] = (records[0].storage_id, known)
            return known[:limit]


class DagsterWebserverSource:
    """A Dagster webserver's GraphQL, which may be a read-only one: the API then holds no database
    password and no Dagster.

    Args:
        url: of the webserver, such as `http://dagster:3000`.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/graphql"

    def materializations(self, asset: str, limit: int) -> list[Materialization]:
        """The latest ones of an asset, the newest first.

        Raises:
            SourceError: if the webserver does not answer, or not so.
        """
        found = self._asked({"asset": {"path": [asset]}, "limit": limit})
        try:
            return [
                Materialization(
                    datetime.datetime.fromtimestamp(float(one["timestamp"]) / 1000, datetime.UTC),
                    dict(_value(entry) for entry in one["metadataEntries"]),
                )
                for one in found.get(
                    "assetMaterializations", []
                )  # an asset that nobody has heard of has none
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._unclear(error) from error

    def _asked(self, variables: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": QUERY, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 - the operator's URL
        try:
            with DIRECT.open(request, timeout=TIMEOUT_SECONDS) as response:
                answer = json.load(response)
            if answer.get("errors"):
                raise ValueError(f"{answer['errors'][0]['message']:.200}")
            return dict(answer["data"]["assetOrError"])
        except (
            OSError,
            http.client.HTTPException,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise self._unclear(error) from error

    def _unclear(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._url} does not say which champion is in force: {type(error).__name__}: {error}"
        )


def source_of(setting: str) -> Source:
    """The source that `CREDITRISK_CHAMPION_SOURCE` names: `dagster`, the instance of
    `DAGSTER_HOME`, or a webserver's URL.
    """
    return (
        DagsterInstanceSource(_instance_of_home)
        if setting == IN_DAGSTER
        else DagsterWebserverSource(setting)
    )


def _instance_of_home() -> "DagsterInstance":
    from dagster import DagsterInstance

    return DagsterInstance.get()


def champion_in(source: Source) -> ChampionRecord | None:
    """The champion that a source names, None before the first."""
    return next((past.record for past in champions_in(source, 1)), None)


def champions_in(source: Source, limit: int = HISTORY_LIMIT) -> list[PastRecord]:
    """What a source says of the champion so far, the newest first."""
    return [
        PastRecord(one.at, ChampionRecord.from_values(one.metadata))
        for one in source.materializations(CHAMPION, limit)
    ]


def contender_in(source: Source) -> Contender | None:
    """The newest model that was registered; None before the first."""
    newest = [one for asset in CONTENDERS for one in source.materializations(asset, 1)]
    if not newest:
        return None
    metadata = max(newest, key=lambda one: one.at).metadata
    return Contender.model_validate({name: metadata[name] for name in Contender.model_fields})


def _value(entry: dict[str, Any]) -> tuple[str, Any]:
    if "jsonString" in entry:
        return entry["label"], json.loads(entry["jsonString"])
    return entry["label"], next((value for name, value in entry.items() if name != "label"), None)
