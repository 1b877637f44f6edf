"""Finds past decisions: in the decision log, or stored."""

import json
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field

from creditrisk_assets.scoring.bundle import MANIFEST, Manifest
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from serving.access.keys import Caller

ANSWERED = (
    "prediction",
    "default_probability",
    "score",
    "decision_id",
    "model_version",
    "bundle_sha256",
    "cut_off",
)


class StoredDecision(BaseModel):
    """A stored decision. A value that the API did not know, or does not show this caller, is
    null.
    """

    decision_id: str
    at: str | None = Field(
        None, description="Time of the decision, UTC; null for a decision on a day's file."
    )
    latency_ms: float | None = Field(
        None, description="From the receipt of the request until it was decided."
    )
    caller: str | None = Field(None, description="Owner of the API key that asked for it.")
    request_id: str | None = None
    trace_id: str | None = None
    customer: dict[str, Any] = Field(description="The record that was decided on.")
    answer: dict[str, Any] = Field(description="What was answered.")


class DecisionLookup:
    """Finds decisions by their ids.

    Args:
        settings: where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def shown_to(self, caller: Caller, decision_id: str) -> StoredDecision:
        """A decision as a caller may see it.

        Raises:
            HTTPException: 404 if there is none for this caller, 422 if it is no decision's id.
        """
        found = self._found(decision_id)
        if "read" in caller.scopes:
            return found
        if found.caller != caller.name:
            raise _unknown(decision_id)  # that there is one is nobody else's business
        protected = self._settings.portfolio.protected
        shown = {name: value for name, value in found.customer.items() if name not in protected}
        return found.model_copy(update={"customer": shown})

    def _found(self, decision_id: str) -> StoredDecision:
        # Reading what was kept takes pyarrow, which the process does without until somebody asks.
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
        about = {
            name: row.get(name) for name in ("at", "latency_ms", "caller", "request_id", "trace_id")
        }
        return StoredDecision(decision_id=decision_id, customer=customer, answer=answer, **about)

    def _answer(self, row: dict[str, Any], bundle_sha256: str) -> dict[str, Any]:
        """The answer on a row of a day's file, as the API would have told it."""
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
        return {**{name: row[name] for name in ANSWERED}, "reasons": reasons, "degraded": False}


def _unknown(decision_id: str) -> HTTPException:
    return HTTPException(404, f"no decision {decision_id}")
