"""The data dictionary: a portfolio's contract as a page for people."""

from collections.abc import Sequence

from creditrisk_assets.portfolio.contract import Field, Portfolio


def data_dictionary(portfolio: Portfolio) -> str:
    """The portfolio as Markdown: every field, the outcome, the features, the reasons."""
    reason_of = {name: reason.code for reason in portfolio.reasons for name in reason.fields}
    fields = [
        (
            f"`{field.name}`",
            field.description,
            field.unit,
            _values(field),
            "yes" if field.required else "no",
            "monitoring only"
            if field.name in portfolio.protected
            else reason_of.get(field.name, ""),
        )
        for field in portfolio.fields
    ]
    coded = [field for field in portfolio.fields if field.codes]
    directions = {
        1: "more of it never lowers the risk",
        -1: "more of it never raises the risk",
        0: "",
    }
    lines = [
        f"# Data dictionary: {portfolio.title}",
        "",
        f"Made from the contract of the portfolio `{portfolio.name}` by `creditrisk portfolio "
        "describe`.",
        "",
        f"Each row is one customer, named by `{portfolio.identifier}`. The outcome "
        f"`{portfolio.target}` (1 = bad, 0 = good) is: {portfolio.target_description}. It can be "
        f"known {portfolio.performance_window_days} days after the decision.",
        "",
        "## Fields",
        "",
        *_table(("field", "meaning", "unit", "valid", "required", "reason"), fields),
        "",
        "## Codes",
        "",
        *_table(
            ("field", "code", "meaning"),
            [
                (f"`{field.name}`", str(code), meaning)
                for field in coded
                for code, meaning in (field.codes or {}).items()
            ],
        ),
        "",
        "## Features",
        "",
        *_table(
            ("feature", "direction"),
            [(f"`{feature.name}`", directions[feature.monotone]) for feature in portfolio.features],
        ),
        "",
        "## Reasons",
        "",
        *_table(
            ("code", "text for the customer", "fields"),
            [
                (reason.code, reason.text, ", ".join(f"`{name}`" for name in reason.fields))
                for reason in portfolio.reasons
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _values(field: Field) -> str:
    if field.codes is not None:
        return "a code, see below"
    return (
        f"{'decimal' if field.decimal else 'whole'} number, {field.minimum:,} to {field.maximum:,}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["None."]
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
