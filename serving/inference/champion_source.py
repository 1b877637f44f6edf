"""Sources of the champion in force: the `champion` asset, in a Dagster instance or behind a Dagster
webserver.
"""

import datetime
import http.client
import json
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import IN_DAGSTER

if TYPE_CHECKING:
    from dagster import DagsterInstance

CHAMPION = "champion"

TIMEOUT_SECONDS = 5.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Dagster is one of the store's own services, so it is reached without a proxy."""

HISTORY_LIMIT = 20
"""Largest number of champions in the history."""

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
    """The champion in force could not be read; the one known before stays."""


@dataclass(frozen=True)
class Materialization:
    """A materialization of the `champion` asset: its time, UTC, and the values of its metadata."""

    at: datetime.datetime
    metadata: dict[str, Any]


@dataclass(frozen=True)
class PastChampion:
    """A champion's record and the time at which it was recorded, UTC."""

    at: datetime.datetime
    record: ChampionRecord

    @classmethod
    def of(cls, materialization: Materialization) -> "PastChampion":
        """The champion of a materialization.

        Raises:
            ValidationError: if its metadata is no champion's record.
        """
        return cls(materialization.at, ChampionRecord.from_values(materialization.metadata))


class Source(Protocol):
    """Gives the materializations of the `champion` asset."""

    def materializations(self) -> list[Materialization]:
        """The latest ones, newest first, at most `HISTORY_LIMIT`."""


class DagsterInstanceSource:
    """A Dagster instance's event log. A materialization of the champion carries plots and takes
    milliseconds to read, so each is read once.

    Args:
        open_instance: called at the first read, and again until it succeeds.
    """

    def __init__(self, open_instance: Callable[[], "DagsterInstance"]) -> None:
        self._open_instance = open_instance
        self._instance: DagsterInstance | None = None
        self._latest_id: int | None = None
        self._read: list[Materialization] = []
        self._lock = threading.Lock()

    def materializations(self) -> list[Materialization]:
        """The latest ones, newest first."""
        from dagster import AssetKey, AssetRecordsFilter

        with self._lock:
            if self._instance is None:
                self._instance = self._open_instance()
            new = AssetRecordsFilter(AssetKey(CHAMPION), after_storage_id=self._latest_id)
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
                self._read = [*latest, *self._read][:HISTORY_LIMIT]
                self._latest_id = records[0].storage_id
            return self._read


class DagsterWebserverSource:
    """A Dagster webserver's GraphQL; it may be read-only. The API then needs no database password
    and no Dagster.

    Args:
        url: of the webserver, such as `http://dagster:3000`.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/graphql"

    def materializations(self) -> list[Materialization]:
        """The latest ones, newest first.

        Raises:
            SourceError: if the webserver does not answer, or gives another answer.
        """
        asset = self._query({"asset": {"path": [CHAMPION]}, "limit": HISTORY_LIMIT})
        try:
            return [
                Materialization(
                    datetime.datetime.fromtimestamp(float(event["timestamp"]) / 1000, datetime.UTC),
                    dict(_value(entry) for entry in event["metadataEntries"]),
                )
                for event in asset.get("assetMaterializations", [])  # an unknown asset has none
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._source_error(error) from error

    def _query(self, variables: dict[str, Any]) -> dict[str, Any]:
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
            raise self._source_error(error) from error

    def _source_error(self, error: Exception) -> SourceError:
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


def _value(entry: dict[str, Any]) -> tuple[str, Any]:
    if "jsonString" in entry:
        return entry["label"], json.loads(entry["jsonString"])
    return entry["label"], next((value for name, value in entry.items() if name != "label"), None)
