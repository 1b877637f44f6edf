"""The model card and the inventory entry of a version, from its bundle, portfolio and settings.

A card is a list of sections with text, tables and pictures, rendered as Markdown and as HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.governance.pages import Table, fairness_note, fairness_table, inline, render
from creditrisk_assets.governance.promotion_gate import held_out_evidence
from creditrisk_assets.modelling.fairness import fairness_by_group
from creditrisk_assets.policy import Policy
from creditrisk_assets.portfolio.contract import DecisionWords, Portfolio
from creditrisk_assets.scoring.bundle import (
    RECALIBRATION,
    Bundle,
    Manifest,
    RecalibrationFacts,
    Scaling,
)
from creditrisk_assets.settings import Settings

ChangeKind = Literal["first", "minor", "major", "material"]

CHANGES: dict[ChangeKind, str] = {
    "first": "the first version",
    "minor": "a refit or a recalibration: the same features, algorithm and population",
    "major": "other features, inputs or another algorithm",
    "material": "another target or population",
}

KINDS = {
    "history": "fitted to the history",
    "candidate": "fitted to the history and to matured production",
    RECALIBRATION: "a recalibration: the graphs of another version with two numbers fitted again",
}
"""Descriptions of a version's kind of training."""

PARENTS_INSPECTION = (
    "Importance of features and mean PDs along them are of the original fit, with its calibration."
)

DIRECTIONS = {1: "more of it never lowers the PD", -1: "more of it never raises the PD", 0: "free"}

CARD = "model_card.html"


class InventoryEntry(BaseModel):
    """A version in the model inventory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: str
    portfolio: str
    bundle_sha256: str
    owner: str
    developer: str
    validator: str
    kind_of_change: ChangeKind
    compared_with_version: str | None
    champion_when_registered: str | None
    training_kind: str
    recalibration: RecalibrationFacts | None = None
    training_rows: int
    training_bads: int
    training_fingerprint: str
    production_days: list[str]
    cut_off: float
    metrics: dict[str, float]
    libraries: dict[str, str]
    later_events: str = (
        "promotions and rollbacks: `creditrisk champion history`; drift, incidents and failed "
        "runs: `creditrisk status`"
    )


@dataclass(frozen=True)
class Section:
    """A section of the card: title, sentences, tables and names of pictures."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """The version of a card.

    Attributes:
        model: name of the registered model.
        version: its number.
        bundle: its bundle.
        champion: version and manifest of the champion when it was registered; None before the
            first.
        checks: name and description of each check.
        plots: PNGs by name.
    """

    model: str
    version: str
    bundle: Bundle
    champion: tuple[str, Manifest] | None
    checks: Sequence[tuple[str, str]]
    plots: Mapping[str, bytes] = field(repr=False)


def kind_of_change(new: Manifest, champion: Manifest | None) -> ChangeKind:
    """Classify a version's change against the champion, by `CHANGES`.

    Features are compared by name, the algorithm by family and parameters, target and population by
    the portfolio's name.
    """
    if champion is None:
        return "first"
    if new.portfolio != champion.portfolio:
        return "material"
    same_inputs = (new.inputs, new.features, new.protected) == (
        champion.inputs,
        champion.features,
        champion.protected,
    )
    same_algorithm = _algorithm(new) == _algorithm(champion)
    return "minor" if same_inputs and same_algorithm else "major"


def _algorithm(manifest: Manifest) -> tuple[str, Mapping[str, float | int], Scaling]:
    return manifest.training.family, manifest.training.parameters, manifest.scaling


def inventory_entry(subject: Subject, settings: Settings) -> InventoryEntry:
    """The inventory entry of a version."""
    manifest, training = subject.bundle.manifest, subject.bundle.manifest.training
    champion_version, champion = subject.champion or (None, None)
    return InventoryEntry(
        model=subject.model,
        version=subject.version,
        portfolio=manifest.portfolio,
        bundle_sha256=subject.bundle.sha256,
        owner=settings.portfolio.owner,
        developer=settings.portfolio.developer,
        validator=settings.portfolio.validator,
        kind_of_change=kind_of_change(manifest, champion),
        compared_with_version=champion_version,
        champion_when_registered=champion_version,
        training_kind=training.kind,
        recalibration=training.recalibration,
        training_rows=training.rows,
        training_bads=training.bads,
        training_fingerprint=training.fingerprint,
        production_days=training.production_days,
        cut_off=manifest.cut_off,
        metrics=manifest.metrics,
        libraries=manifest.libraries,
    )


def model_documents(subject: Subject, settings: Settings) -> dict[str, str]:
    """The card as Markdown and as HTML, and the inventory entry as JSON, by file name."""
    entry = inventory_entry(subject, settings)
    sections = card_sections(subject, entry, settings)
    title = f"Model card: {subject.model}, version {subject.version}"
    pictures = {name: inline(png) for name, png in subject.plots.items()}
    return {
        "model_card.md": render("model_card.md", title=title, sections=sections),
        CARD: render(
            "model_card.html",
            home=settings.api_url,
            title=title,
            sections=sections,
            pictures=pictures,
            summary=card_summary(entry),
        ),
        "inventory.json": entry.model_dump_json(indent=2) + "\n",
    }


def card_summary(entry: InventoryEntry) -> str:
    """The model in one sentence: what it was fitted to, how well it ranks, its cut-off."""
    figures = entry.metrics
    auc = (
        f"AUC {figures['roc_auc']:.3f} ({figures['roc_auc_low']:.3f} to "
        f"{figures['roc_auc_high']:.3f}) on {figures['rows']:,.0f} held-out customers; "
        if {"roc_auc", "roc_auc_low", "roc_auc_high", "rows"} <= figures.keys()
        else ""
    )
    return (
        f"Version {entry.version} is {KINDS.get(entry.training_kind, entry.training_kind)}: "
        f"{entry.training_rows:,} customers, {entry.training_bads:,} of them bad; {auc}cut-off PD "
        f"{entry.cut_off:.4f}."
    )


def card_sections(subject: Subject, entry: InventoryEntry, settings: Settings) -> list[Section]:
    """All sections of the card."""
    portfolio, manifest = settings.portfolio, subject.bundle.manifest
    evidence = held_out_evidence(subject.bundle, portfolio)
    fairness = fairness_by_group(
        evidence.target, subject.bundle.score(evidence.raw), evidence.groups
    )
    reasons = tuple(
        (reason.code, reason.text, ", ".join(reason.fields)) for reason in portfolio.reasons
    )
    return [
        _facts(entry, portfolio.words),
        Section(
            "Intended use",
            (portfolio.intended_use or "not stated by the portfolio", f"{portfolio.title}."),
        ),
        Section("Limits", portfolio.limits or ("not stated by the portfolio",)),
        _data(entry, portfolio),
        Section(
            "Quality",
            (
                f"On {evidence.origin}: customers outside fit, calibration and cut-off.",
                *((PARENTS_INSPECTION,) if entry.training_kind == RECALIBRATION else ()),
            ),
            (_metrics(manifest),),
            tuple(subject.plots),
        ),
        _inputs(portfolio),
        Section(
            "Reasons",
            () if reasons else ("none stated by the portfolio",),
            (Table(("code", "text", "fields"), reasons),),
        ),
        Section(
            "Fairness monitoring",
            (
                f"On the same held-out rows. {fairness_note(portfolio.words)}",
                "`creditrisk fairness --data FILE` shows how well the features predict each field.",
            ),
            (fairness_table(fairness, portfolio.words),),
        ),
        _monitoring(subject.checks, settings),
        Section(
            "Rollback plan",
            (
                "`creditrisk champion rollback VERSION --why ...` restores a former champion. Its "
                "stored bundle is verified before it is served, and the API follows within "
                "seconds.",
            ),
        ),
        Section(
            "Libraries",
            (),
            (Table(("library", "version"), tuple(sorted(entry.libraries.items()))),),
        ),
    ]


def _facts(entry: InventoryEntry, words: DecisionWords) -> Section:
    change = CHANGES[entry.kind_of_change]
    against = (
        f", against version {entry.compared_with_version}" if entry.compared_with_version else ""
    )
    rows = (
        ("owner", entry.owner),
        ("developer", entry.developer),
        ("validator", entry.validator),
        ("kind of change", f"{entry.kind_of_change}: {change}{against}"),
        (
            "kind of model",
            f"{entry.training_kind}: {KINDS.get(entry.training_kind, 'another way')}",
        ),
        ("bundle", f"SHA-256 {entry.bundle_sha256}"),
        ("cut-off", f"PD {entry.cut_off:.4f}: {words.below} below it, {words.above} from it on"),
    )
    return Section("Version", (), (Table(("", ""), rows), *_recalibration(entry)))


def _recalibration(entry: InventoryEntry) -> tuple[Table, ...]:
    facts = entry.recalibration
    if facts is None:
        return ()
    rows = (
        (
            "recalibrated",
            f"bundle SHA-256 {facts.parent_sha256}; model, ranking, decisions and reasons are the "
            "same",
        ),
        ("changed", facts.update),
        ("new log-odds", f"{facts.intercept:+.4f} {facts.slope:+.4f} * old log-odds"),
        ("intercept and slope against no change", f"p {facts.change_p:.2g}"),
        ("intercept and slope against the intercept alone", f"p {facts.slope_p:.2g}"),
    )
    return (Table(("", ""), rows),)


def _data(entry: InventoryEntry, portfolio: Portfolio) -> Section:
    days = entry.production_days
    learned = "recalibrated" if entry.training_kind == RECALIBRATION else "trained"
    rows = (
        ("portfolio", entry.portfolio),
        ("outcome", f"{portfolio.target}: {portfolio.target_description}"),
        ("known after", f"{portfolio.performance_window_days} days"),
        (f"rows {learned} on", f"{entry.training_rows:,}"),
        (
            "bads among them",
            f"{entry.training_bads:,} ({entry.training_bads / entry.training_rows:.2%})",
        ),
        (
            "matured production days",
            f"{len(days)}, {days[0]} to {days[-1]}" if days else "none: history alone",
        ),
        ("fingerprint", f"SHA-256 {entry.training_fingerprint}"),
    )
    return Section("Data", (), (Table(("", ""), rows),))


def _metrics(manifest: Manifest) -> Table:
    metrics = manifest.metrics
    ends = ("_low", "_high", "_standard_error")
    rows = tuple(
        (
            name,
            f"{value:,.0f}" if name in ("rows", "bads") else f"{value:.4f}",
            f"{metrics[f'{name}_low']:.4f} to {metrics[f'{name}_high']:.4f}"
            if f"{name}_low" in metrics
            else "",
        )
        for name, value in metrics.items()
        if not name.endswith(ends)
    )
    return Table(("figure", "value", "95 % interval"), rows)


def _inputs(portfolio: Portfolio) -> Section:
    features = tuple((feature.name, DIRECTIONS[feature.monotone]) for feature in portfolio.features)
    unused = tuple(
        (field.name, field.description)
        for field in portfolio.fields
        if field.name in portfolio.protected
    )
    return Section(
        "Features",
        ("No feature uses a protected field; the record has them for fairness monitoring.",),
        (
            Table(("feature", "direction"), features),
            Table(("field not used", "description"), unused),
        ),
    )


def _monitoring(checks: Sequence[tuple[str, str]], settings: Settings) -> Section:
    sections = {name: getattr(settings.policy, name) for name in Policy.model_fields}
    limits = tuple(
        (f"{section}.{name}", str(value), str(type(limits).model_fields[name].description))
        for section, limits in sections.items()
        for name, value in limits
    )
    return Section(
        "Monitoring plan",
        ("Automatic checks, and the limits of the checks and of the promotion gate.",),
        (
            Table(("check", "passes if"), tuple(checks)),
            Table(("limit", "value", "purpose"), limits),
        ),
    )
