"""The description of a model version in MLflow: what was decided about it, on which figures, and
why.

It is made of the ledger, the verdict and the bundle's manifest each time, so that a later move adds
to it and takes nothing away. `defs.champion_records` writes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from creditrisk_assets.governance.ledger import Entry
from creditrisk_assets.governance.verdict import Verdict
from creditrisk_assets.scoring.bundle import Manifest

SHOWN = (
    ("AUC", "roc_auc", ".4f"),
    ("Gini", "gini", ".4f"),
    ("KS", "ks", ".4f"),
    ("Brier score", "brier", ".4f"),
    ("mean PD", "mean_pd", ".1%"),
    ("bad rate", "bad_rate", ".1%"),
)
"""Label, name in the verdict, and format of each figure."""

WORDS = {
    "first": "first champion",
    "promoted": "promoted",
    "rejected": "rejected",
    "rolled_back": "rolled back",
    "cut_off": "cut-off changed",
}
"""Actions of the ledger that are about a version; a changed policy is about all."""


@dataclass(frozen=True)
class DescribedVersion:
    """A version and what is known of it.

    Attributes:
        version: its number.
        manifest: of its bundle.
        entries: the whole ledger.
        verdict: of the gate on this version; None before it is judged.
        cause: the evidence that asked for it; None if a person or nothing did.
        links: addresses by their name.
    """

    version: str
    manifest: Manifest
    entries: Sequence[Entry]
    verdict: Verdict | None
    cause: str | None
    links: Mapping[str, str]


def judgement_of(entries: Sequence[Entry], version: str) -> Entry | None:
    """The last entry that judges a version."""
    of_version = (
        one for one in reversed(entries) if one.challenger == version and one.evidence_sha256
    )
    return next(of_version, None)


def describe_version(subject: DescribedVersion) -> str:
    """The description as Markdown."""
    parts = [
        f"**{_state(subject)}.** {_reason(subject)}".rstrip(),
        _figures(subject),
        f"Asked for by: {subject.cause}." if subject.cause else "",
        _training(subject),
        " · ".join(f"[{name}]({address})" for name, address in subject.links.items()),
        _history(subject),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _state(subject: DescribedVersion) -> str:
    version, entries = subject.version, subject.entries
    judgement = judgement_of(entries, version)
    words = WORDS[judgement.action].capitalize() if judgement else "Not judged yet"
    if entries and entries[-1].after.model_version == version:
        return f"{words}; champion now"
    if any(one.after.model_version == version for one in entries):
        left = next(
            one
            for one in reversed(entries)
            if one.before is not None
            and one.before.model_version == version != one.after.model_version
        )
        return (
            f"{words}; champion until {left.at:%Y-%m-%d}, then version {left.after.model_version}"
        )
    return words


def _reason(subject: DescribedVersion) -> str:
    judgement = judgement_of(subject.entries, subject.version)
    return f"{judgement.why[:1].upper()}{judgement.why[1:]}." if judgement else ""


def _figures(subject: DescribedVersion) -> str:
    """The figures of the version beside those of the champion on the same rows."""
    verdict = subject.verdict
    sides = {f"version {subject.version}": subject.manifest.metrics}
    rows, bads = (int(subject.manifest.metrics[name]) for name in ("rows", "bads"))
    if verdict is not None and verdict.evidence is not None and verdict.challenger.figures:
        sides = {f"version {subject.version}": verdict.challenger.figures}
        rows, bads = verdict.evidence.rows, verdict.evidence.bads
        if verdict.champion is not None and verdict.champion.figures:
            sides[f"champion then, version {verdict.champion.version}"] = verdict.champion.figures
    lines = [
        f"| on {rows:,} held-out rows, {bads:,} bads | {' | '.join(sides)} |",
        "|---" * (1 + len(sides)) + "|",
    ]
    for label, name, form in SHOWN:
        values = [f"{one[name]:{form}}" if name in one else "none" for one in sides.values()]
        lines.append(f"| {label} | {' | '.join(values)} |")
    return "\n".join(lines)


def _training(subject: DescribedVersion) -> str:
    training = subject.manifest.training
    days = training.production_days
    origin = f"; {len(days)} production days, {days[0]} to {days[-1]}" if days else ""
    return (
        f"Kind {training.kind}, family {training.family}: {training.rows:,} training rows, "
        f"{training.bads:,} bads{origin}. Own cut-off: PD {subject.manifest.cut_off:.4f}."
    )


def _history(subject: DescribedVersion) -> str:
    lines = list(_moves(subject.entries, subject.version))
    return "\n".join(["Entries of the ledger:", "", *lines]) if lines else ""


def _moves(entries: Sequence[Entry], version: str) -> Iterator[str]:
    for entry in entries:
        before = entry.before.model_version if entry.before else None
        about = {entry.challenger, before, entry.after.model_version}
        if entry.action not in WORDS or version not in about:
            continue
        if entry.action == "rejected" and entry.challenger != version:
            continue  # it stayed champion
        words = WORDS[entry.action]
        if entry.action == "promoted" and entry.challenger != version:
            words = f"replaced by version {entry.after.model_version}"
        elif entry.action == "rolled_back" and entry.after.model_version == version:
            words = f"champion again, in place of version {before}"
        elif entry.action == "cut_off":
            words = f"cut-off changed to PD {entry.after.rule.cut_off:.4f}"
        yield f"- {entry.number}, {entry.at:%Y-%m-%d %H:%M} UTC: {words}. {entry.why}"
