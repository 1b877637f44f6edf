"""The model card and the inventory entry of a version, from what its bundle, its portfolio and the
settings say.

A card is sections of text, tables and pictures; Markdown and HTML are two renderings of the same
sections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.governance.pages import Table, fairness_note, fairness_table, inline, render
from creditrisk_assets.governance.promotion_gate import held_out_evidence
from creditrisk_assets.modelling.fairness import FieldFigures, fairness_by_group
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
    RECALIBRATION: "a recalibration: the graphs of another version, of which two numbers were "
    "fitted again",
}
"""How a version was made, by the kind that its bundle states."""

PARENTS_INSPECTION = (
    "Importance of features and mean PDs along them were computed when the model was fitted, with "
    "the calibration then."
)

DIRECTIONS = {1: "more of it never lowers the PD", -1: "more of it never raises the PD", 0: "free"}

CARD = "model_card.html"


class InventoryEntry(BaseModel):
    """One version in the model inventory."""

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
    """A title, sentences, tables, and the names of the pictures that belong to it."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """The version that a card is about.

    Attributes:
        model: name of the registered model.
        version: its number.
        bundle: its bundle.
        champion: version and manifest of the champion when it was registered; None before the
            first.
        checks: name and description of each check that watches it.
        plots: PNGs by name.
    """

    model: str
    version: str
    bundle: Bundle
    champion: tuple[str, Manifest] | None
    checks: Sequence[tuple[str, str]]
    plots: Mapping[str, bytes] = field(repr=False)


def kind_of_change(new: Manifest, champion: Manifest | None) -> ChangeKind:
    """What a version changes against the champion: minor is a refit or a recalibration, major other
    features, inputs or another algorithm, material another target or population.

    The features are compared by name and the algorithm by its family and parameters; a portfolio
    that is another one has another name.
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
    """The version's entry in the inventory."""
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
        CARD: render("model_card.html", title=title, sections=sections, pictures=pictures),
        "inventory.json": entry.model_dump_json(indent=2) + "\n",
    }


def card_sections(subject: Subject, entry: InventoryEntry, settings: Settings) -> list[Section]:
    """Everything that the card says."""
    portfolio, manifest = settings.portfolio, subject.bundle.manifest
    evidence = held_out_evidence(subject.bundle, portfolio)
    fairness = fairness_by_group(
        evidence.target, subject.bundle.score(evidence.raw), evidence.groups
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
                f"On {evidence.origin}: customers that fit, calibration and cut-off have not seen.",
                *((PARENTS_INSPECTION,) if entry.training_kind == RECALIBRATION else ()),
            ),
            (_metrics(manifest),),
            tuple(subject.plots),
        ),
        _inputs(portfolio),
        _reasons(portfolio),
        _fairness(fairness, portfolio.words),
        _monitoring(subject.checks, settings),
        Section(
            "Rollback plan",
            (
                "`creditrisk champion rollback VERSION --why ...` puts a former champion back. "
                "Its bundle was kept unchanged, is proven before it is served, and the API "
                "follows within seconds.",
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
        ("cut-off", f"PD {entry.cut_off:.4f}: from there on {words.above}, under it {words.below}"),
    )
    return Section("Version", (), (Table(("", ""), rows), *_recalibration(entry)))


def _recalibration(entry: InventoryEntry) -> tuple[Table, ...]:
    facts = entry.recalibration
    if facts is None:
        return ()
    rows = (
        (
            "recalibrated",
            f"bundle SHA-256 {facts.parent_sha256}, whose model, ranking, decisions and reasons "
            "it keeps",
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
    features = tuple((one.name, DIRECTIONS[one.monotone]) for one in portfolio.features)
    unused = tuple(
        (one.name, one.description) for one in portfolio.fields if one.name in portfolio.protected
    )
    return Section(
        "Features",
        ("Protected fields are in no feature; they stay in the record for fairness monitoring.",),
        (Table(("feature", "direction"), features), Table(("field not used", "why"), unused)),
    )


def _reasons(portfolio: Portfolio) -> Section:
    rows = tuple((one.code, one.text, ", ".join(one.fields)) for one in portfolio.reasons)
    return Section(
        "Reasons",
        () if rows else ("none stated by the portfolio",),
        (Table(("code", "text", "fields"), rows),),
    )


def _fairness(figures: Sequence[FieldFigures], words: DecisionWords) -> Section:
    text = (
        f"On the same held-out rows. {fairness_note(words)}",
        "How much the features give away of each field: `creditrisk fairness --data FILE`.",
    )
    return Section("Fairness monitoring", text, (fairness_table(figures, words),))


def _monitoring(checks: Sequence[tuple[str, str]], settings: Settings) -> Section:
    sections = {name: getattr(settings.policy, name) for name in Policy.model_fields}
    limits = tuple(
        (f"{section}.{name}", str(value), str(type(limits).model_fields[name].description))
        for section, limits in sections.items()
        for name, value in limits
    )
    return Section(
        "Monitoring plan",
        (
            "Checks that run by themselves, and the limits of the policy that they and the "
            "promotion gate decide by.",
        ),
        (
            Table(("check", "what holds"), tuple(checks)),
            Table(("limit", "value", "purpose"), limits),
        ),
    )
