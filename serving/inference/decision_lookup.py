"""Finds past decisions, in the decision log or in the store."""

import json
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field

from creditrisk_assets.scoring.bundle import MANIFEST, Manifest
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from serving.access.keys import Caller

ANSWER_FIELDS = (
    "prediction",
    "default_probability",
    "score",
    "decision_id",
    "model_version",
    "bundle_sha256",
    "cut_off",
)


class StoredDecision(BaseModel):
    """A stored decision. A value that is unknown, or hidden from the caller, is null."""

    decision_id: str
    at: str | None = Field(
        None, description="Time of the decision, UTC; null for a decision on a day's file."
    )
    latency_ms: float | None = Field(
        None, description="Time from the receipt of the request to the decision."
    )
    caller: str | None = Field(None, description="Owner of the API key of the request.")
    request_id: str | None = None
    trace_id: str | None = None
    runtime: str | None = Field(
        None, description="What decided: `compiled` code, or the graphs in `onnxruntime`."
    )
    customer: dict[str, Any] = Field(description="The customer's record.")
    answer: dict[str, Any] = Field(description="The answer of the API.")


class DecisionLookup:
    """Finds decisions by their ids.

    Args:
        settings: the places of the decisions.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def decision_for(self, caller: Caller, decision_id: str) -> StoredDecision:
        """A decision, without the values that the caller may not see.

        Raises:
            HTTPException: 404 if there is none for this caller, 422 if the id is invalid.
        """
        found = self._find(decision_id)
        if "read" in caller.scopes:
            return found
        if found.caller != caller.name:
            raise _unknown(decision_id)  # other callers must not learn that it exists
        protected = self._settings.portfolio.protected
        visible = {name: value for name, value in found.customer.items() if name not in protected}
        return found.model_copy(update={"customer": visible})

    def _find(self, decision_id: str) -> StoredDecision:
        # These import pyarrow, which the process loads at the first lookup only.
        from creditrisk_assets.decisions import archive
        from creditrisk_assets.decisions.sets import DecisionsError, NoSuchDecision, parse_id

        try:
            parse_id(decision_id)
        except DecisionsError as error:
            raise HTTPException(422, str(error)) from error
        try:
            champion, record = archive.find_decision(
                archive.ApiDecisions.of(self._settings), decision_id
            )
        except NoSuchDecision as error:
            raise _unknown(decision_id) from error
        row: dict[str, Any] = record.to_pylist()[0]
        portfolio = self._settings.portfolio
        customer = {name: row[name] for name in (portfolio.identifier, *portfolio.field_names)}
        answer = (
            json.loads(row[archive.ANSWER])
            if archive.ANSWER in row
            else self._answer(row, champion.bundle_sha256)
        )
        about = {name: row.get(name) for name in archive.CONTEXT_COLUMNS}
        return StoredDecision(decision_id=decision_id, customer=customer, answer=answer, **about)

    def _answer(self, row: dict[str, Any], bundle_sha256: str) -> dict[str, Any]:
        """The answer on a row of a day's file, in the form of the API's answers."""
        from creditrisk_assets.decisions.sets import REASONS

        bundles = BundleStore(self._settings.data_dir)
        manifest = Manifest.model_validate_json(
            (bundles.folder(bundle_sha256) / MANIFEST).read_bytes()
        )
        texts = {reason.code: reason.text for reason in manifest.reasons}
        reasons = [
            {"code": row[name], "text": texts[row[name]]}
            for name in REASONS
            if row[name] is not None
        ]
        return {
            **{name: row[name] for name in ANSWER_FIELDS},
            "reasons": reasons,
            "degraded": False,
        }


def _unknown(decision_id: str) -> HTTPException:
    return HTTPException(404, f"no decision {decision_id}")
