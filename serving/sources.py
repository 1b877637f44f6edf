"""Where the API reads which champion is in force: the `champion` asset, in a Dagster instance or behind a Dagster webserver."""

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Protocol

from creditrisk_assets.scoring.bundle import ChampionRecord

if TYPE_CHECKING:
    from dagster import DagsterInstance

IN_DAGSTER = "dagster"
TIMEOUT_SECONDS = 5.0

QUERY = """
query Latest($asset: AssetKeyInput!) {
  assetOrError(assetKey: $asset) {
    __typename
    ... on Asset {
      assetMaterializations(limit: 1) {
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


class Source(Protocol):
    """Where the records are."""

    def latest(self, asset: str) -> dict[str, Any] | None:
        """Metadata values of an asset's latest materialization, None before the first."""


class DagsterInstanceSource:
    """A Dagster instance's event log."""

    def __init__(self, instance: "DagsterInstance") -> None:
        self._instance = instance

    def latest(self, asset: str) -> dict[str, Any] | None:
        """Metadata values of an asset's latest materialization, None before the first."""
        from dagster import AssetKey

        event = self._instance.get_latest_materialization_event(AssetKey(asset))
        if event is None or event.asset_materialization is None:
            return None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


class DagsterWebserverSource:
    """A Dagster webserver's GraphQL, which may be a read-only one: the API then holds no database password and no Dagster.

    Args:
        url: of the webserver, such as `http://dagster:3000`.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/graphql"

    def latest(self, asset: str) -> dict[str, Any] | None:
        """Metadata values of an asset's latest materialization, None before the first.

        Raises:
            SourceError: if the webserver does not answer, or not so.
        """
        found = self._asked({"asset": {"path": [asset]}})
        if found["__typename"] != "Asset" or not found["assetMaterializations"]:
            return None
        return dict(_value(entry) for entry in found["assetMaterializations"][0]["metadataEntries"])

    def _asked(self, variables: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": QUERY, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 - the operator's URL
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                answer = json.load(response)
            return dict(answer["data"]["assetOrError"])
        except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError) as error:
            raise SourceError(f"{self._url} does not say which champion is in force: {type(error).__name__}: {error}") from error


def source_of(setting: str) -> Source:
    """The source that `CREDITRISK_CHAMPION_SOURCE` names: `dagster`, the instance of `DAGSTER_HOME`, or a webserver's URL.

    Raises:
        ValueError: if it is neither.
    """
    if setting == IN_DAGSTER:
        from dagster import DagsterInstance

        return DagsterInstanceSource(DagsterInstance.get())
    if setting.startswith(("http://", "https://")):
        return DagsterWebserverSource(setting)
    raise ValueError(f"champion source {setting!r}; valid: {IN_DAGSTER!r}, or the http(s) URL of a Dagster webserver")


def champion_in(source: Source) -> ChampionRecord | None:
    """The champion that a source names, None before the first."""
    metadata = source.latest("champion")
    return None if metadata is None else ChampionRecord.of_values(metadata)


def _value(entry: dict[str, Any]) -> tuple[str, Any]:
    if "jsonString" in entry:
        return entry["label"], json.loads(entry["jsonString"])
    return entry["label"], next((value for name, value in entry.items() if name != "label"), None)
