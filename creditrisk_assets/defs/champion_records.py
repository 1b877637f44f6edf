"""Records of the champion: metadata of the asset `champion`, and the comparison of ledger, MLflow
alias, asset and bundles. Commands that change the champion belong in `champion_commands`.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.metadata import picture, rounded, table
from creditrisk_assets.governance.ledger import Entry, InForce, Ledger, LedgerError, last_move
from creditrisk_assets.scoring.bundle import Bundle, BundleError, BundlePlace, ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.registry import RegisteredBundle, Registry

DATA_VERSION = "decides-from-now-on"
"""Dagster's data version of every champion, constant on purpose: with a version for each champion
Dagster would show every past day of `production_scores` as unsynced, although a new champion leaves
past decisions valid. The metadata name the bundle in force.
"""


def registry_of(settings: Settings) -> "Registry":
    """The MLflow registry of the settings' store."""
    from creditrisk_assets.registry import Registry

    return Registry(settings)


def in_force_from(
    registered: "RegisteredBundle", bundle: Bundle, before: InForce | None
) -> InForce:
    """The ledger's state after a version becomes champion; a cut-off that the policy has set
    outlives the model.

    Args:
        registered: the version.
        bundle: its bundle.
        before: the state before.
    """
    from creditrisk_assets.governance.policy import rule_of

    by_policy = before is not None and before.cut_off_by == "policy"
    return InForce(
        **dict(registered.ref),
        rule=rule_of(bundle, before.rule.cut_off if before is not None and by_policy else None),
        cut_off_by="policy" if by_policy else "model",
    )


def champion_metadata(
    registry: "Registry",
    in_force: InForce,
    bundle: Bundle,
    verdict: str,
    reason: str,
    entries: list[Entry],
) -> dict[str, Any]:
    """Metadata of every materialization of `champion`.

    Args:
        registry: registry of the version.
        in_force: the state from now on.
        bundle: its bundle.
        verdict: `first`, `promoted`, `rejected`, `unchanged`, `rolled_back` or `cut_off`.
        reason: reason for the verdict.
        entries: entries of the ledger.
    """
    registered = registry.version(in_force.model_version)
    entry, moved = entries[-1], last_move(entries)
    return {
        "verdict": verdict,
        "reason": reason,
        "AUC at validation": rounded(bundle.manifest.metrics["roc_auc"]),
        "cut-off, PD": rounded(in_force.rule.cut_off),
        **registered.ref.model_dump(exclude={"fallback"}),
        "documents_uri": registered.documents_uri,
        "in_force_verdict": moved.action,
        "in_force_reason": moved.why,
        "rule": dg.MetadataValue.json(in_force.rule.model_dump()),
        "cut_off": in_force.rule.cut_off,
        "cut_off_by": in_force.cut_off_by,
        **(
            {"fallback": dg.MetadataValue.json(in_force.fallback.model_dump())}
            if in_force.fallback
            else {}
        ),
        "production_days": ",".join(bundle.manifest.training.production_days),
        "validation_roc_auc": bundle.manifest.metrics["roc_auc"],
        **({"day_of_data": entry.day} if entry.day else {}),
        "ledger_entry": entry.number,
        "ledger_sha256": entry.sha256,
    }


def policy_metadata(
    in_force: InForce, bundle: Bundle, settings: Settings
) -> dict[str, dg.MarkdownMetadataValue]:
    """Metadata of the policy: the effect of the cut-off in force and of others, and the grades, on
    the held-out rows in the bundle.

    Args:
        in_force: the state with the rule.
        bundle: bundle in force.
        settings: grades and assumptions of loss.
    """
    from creditrisk_assets.governance.policy import policy_view
    from creditrisk_assets.modelling.plots import trade_off_plot

    view = policy_view(bundle, in_force.rule, settings.portfolio)
    rates = (
        view.trade_off["approval_rate"].to_numpy(dtype=float),
        view.trade_off["bad_rate"].to_numpy(dtype=float),
    )
    words = settings.portfolio.words
    trade_off = view.trade_off.rename(
        columns={
            "approval_rate": words.rate,
            "bad_rate": f"bad rate of those {words.below}",
            "bad_rate_refused": f"bad rate of those {words.above}",
            "bads_approved_share": f"share of bads {words.below}",
        }
    )
    shown = {"grades": table(view.grades), "trade_off": table(trade_off, len(trade_off))}
    if settings.policy.reports.rows:
        shown["trade_off_plot"] = picture(
            trade_off_plot(*rates, view.in_force, in_force.rule.cut_off, words)
        )
    return shown


def describe_versions(settings: Settings, entries: list[Entry]) -> str | None:
    """Write, in MLflow, the descriptions of the versions that the last entry of the ledger is
    about.

    Returns:
        The reasons where they could not be written. They decide nothing, and the next move writes
        them again.
    """
    from creditrisk_assets.registry import RegistryError

    last, problems = entries[-1], []
    before = last.before.model_version if last.before else None
    for version in dict.fromkeys((last.challenger, before, last.after.model_version)):
        if version is None:
            continue
        try:
            _describe(version, entries, settings)
        except (RegistryError, BundleError) as error:
            problems.append(f"version {version}: {error}")
    return "; ".join(problems) or None


def _describe(version: str, entries: list[Entry], settings: Settings) -> None:
    from creditrisk_assets.governance.model_card import CARD
    from creditrisk_assets.governance.verdict import Verdict
    from creditrisk_assets.governance.version_description import (
        DescribedVersion,
        describe_version,
        judgement_of,
    )

    registry = registry_of(settings)
    registered = registry.version(version)
    experiment, tags = registry.run_of(registered)
    causes = [tags[name] for name in ("cause_evidence", "cause_values") if tags.get(name)]
    run = f"#/experiments/{experiment}/runs/{registered.record.run_id}"
    judgement, verdict, links = judgement_of(entries, version), None, {}
    if judgement is not None and (digest := judgement.evidence_sha256) is not None:
        links["Verdict"] = f"{settings.api_url}/reports/verdicts/{digest}"
        stored = registry.document(version, f"verdicts/{digest[:16]}/verdict.json")
        verdict = None if stored is None else Verdict.model_validate_json(stored)
    links |= {"Model card": f"{run}/artifacts/{CARD}", "MLflow run": run}
    if tags.get("dagster_run_id"):
        links["Dagster run"] = f"{settings.dagster_url}/runs/{tags['dagster_run_id']}"
    subject = DescribedVersion(
        version=version,
        manifest=registered.load().manifest,
        entries=entries,
        verdict=verdict,
        cause="; ".join(causes) or None,
        links=links,
    )
    registry.describe(registered, describe_version(subject))


@dataclass(frozen=True)
class Finding:
    """Result of one comparison of the champion's records."""

    claim: str
    holds: bool
    observed: str


def verify(instance: dg.DagsterInstance, settings: Settings, every_version: bool) -> list[Finding]:
    """Compare the ledger, MLflow's alias, the Dagster asset and the bundles.

    Args:
        instance: where `champion` is recorded.
        settings: where ledger and MLflow are.
        every_version: verify the bundles of all former champions too.
    """
    try:
        entries = Ledger(settings.ledger).entries()
    except LedgerError as error:
        return [Finding("the ledger is an unbroken chain", False, str(error))]
    if not entries:
        return [Finding("there is a champion", False, "the ledger is empty; run make train")]
    head = entries[-1]
    chain = Finding(
        "the ledger is an unbroken chain", True, f"{len(entries)} entries, the last {head.sha256}"
    )
    proofs = _bundle_findings(BundleStore(settings.data_dir), entries, every_version)
    return [chain, *_asset_findings(instance, entries), _alias_finding(settings, head), *proofs]


def agreement(findings: list[Finding]) -> dg.AssetCheckResult:
    """Result of the check `champion_records_agree`."""
    wrong = [one for one in findings if not one.holds]
    return check_result(
        "champion_records_agree",
        passed=not wrong,
        summary="; ".join(f"{one.claim}: {one.observed}" for one in wrong) or "all agree",
        observed=len(wrong),
        threshold=0,
        rows=len(findings),
        findings=table(pd.DataFrame([asdict(one) for one in findings])),
    )


def _asset_findings(instance: dg.DagsterInstance, entries: list[Entry]) -> list[Finding]:
    head = entries[-1]
    written = {entry.number: entry.sha256 for entry in entries}
    marks = [
        (move.values["ledger_entry"], move.values["ledger_sha256"])
        for move in event_log.champion_moves(instance)
    ]
    if not marks:
        return [
            Finding(
                "the asset champion names the last entry of the ledger",
                False,
                "it was never materialized",
            )
        ]
    unrecognised = [
        f"entry {number} with {sha256}" for number, sha256 in marks if written.get(number) != sha256
    ]
    record = event_log.champion_in_force(instance)
    same = (
        record is not None
        and record.model_version == head.after.model_version
        and record.bundle_sha256 == head.after.bundle_sha256
        and record.rule == head.after.rule
    )
    named = _version_and_cut_off(record) if record else "none"
    return [
        Finding(
            "the asset champion names what the ledger has in force",
            same,
            f"asset: {named}; ledger: {_version_and_cut_off(head.after)}",
        ),
        Finding(
            "every entry that a materialization of champion names is in the ledger",
            not unrecognised,
            ", ".join(unrecognised) or f"{len(marks)} materializations",
        ),
    ]


def _version_and_cut_off(one: ChampionRecord | InForce) -> str:
    return f"version {one.model_version}, cut-off {one.rule.cut_off}"


def _alias_finding(settings: Settings, head: Entry) -> Finding:
    from creditrisk_assets.registry import RegistryError

    claim = "MLflow's alias champion names the same bundle"
    try:
        alias = registry_of(settings).champion_bundle()
    except RegistryError as error:
        return Finding(claim, False, str(error))
    return Finding(
        claim,
        alias == head.after.bundle_sha256,
        f"alias: bundle {alias}, ledger: bundle {head.after.bundle_sha256}",
    )


def _bundle_findings(
    bundles: BundleStore, entries: list[Entry], every_version: bool
) -> list[Finding]:
    """Verify the bundle in force or, with `every_version`, that of each former champion too."""
    by_version = {
        entry.after.model_version: entry.after
        for entry in (entries if every_version else entries[-1:])
    }
    findings = []
    for version, one in by_version.items():
        bundles_of_version: dict[str, BundlePlace] = {"bundle": one}
        if one.fallback is not None:
            bundles_of_version["fallback bundle"] = one.fallback
        findings += [
            _bundle_finding(bundles, f"the {what} of version {version}", place)
            for what, place in bundles_of_version.items()
        ]
    return findings


def _bundle_finding(bundles: BundleStore, what: str, place: BundlePlace) -> Finding:
    claim = f"{what} has its hash and gives its golden answers"
    try:
        return Finding(claim, True, bundles.load(place.bundle_sha256).sha256)
    except BundleError as error:
        return Finding(claim, False, str(error))
