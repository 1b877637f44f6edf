"""Column schema and column lineage of the assets' tables, as Dagster's UI and catalogues read them:
names, types and descriptions, from the portfolio's fields where a column is one.

Figures for people belong in `metadata`.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
import pandas as pd
import pyarrow as pa

from creditrisk_assets.portfolio.contract import Field, Portfolio

SCHEMA = "dagster/column_schema"
LINEAGE = "dagster/column_lineage"

ANSWERS = {
    "decision_id": "id of the decision",
    "default_probability": "PD of the customer, 0 to 1",
    "score": "points; higher is safer",
    "prediction": "1 if the PD is at or above the cut-off",
    "reason_1": "code of the strongest reason that raises the risk",
    "reason_2": "code of the second reason",
    "reason_3": "code of the third reason",
    "reason_4": "code of the fourth reason",
    "cut_off": "PD at or above which the prediction is 1",
    "model_version": "version that decided",
    "bundle_sha256": "hash of the bundle that decided",
}
"""Columns that a decision adds to a customer's record."""

FROM_THE_MODEL = (
    "default_probability",
    "score",
    "prediction",
    "reason_1",
    "reason_2",
    "reason_3",
    "reason_4",
)
"""Columns that the model computes from the record."""

DRIFT = {
    "column": "the score, or a field",
    "rows": "rows of the day",
    "counts": "rows of the day in each bin of the reference; the last bin is of missing values",
    "missing": "rows of the day without a value",
    "out_of_range": "rows of the day with a value beyond those of training",
    "new_codes": "rows of the day with a code that training never saw",
    "rows_in": "rows of the day's files",
    "rows_rejected": "rows of the day's files that were rejected",
    "value": "PSI (of a field: CSI) of the day alone",
    "bins": "bins of the comparison",
    "days": "days of the comparison that decided",
    "pooled_rows": "rows of the comparison that decided",
    "pooled_value": "PSI of the comparison that decided",
    "p_value": "probability of such a PSI, or a larger one, by chance",
    "critical": "PSI that chance exceeds with the probability alpha",
    "threshold": "alarm line of pooled_value",
    "drifted": "true if pooled_value is above its line",
    "reference_rows": "rows of training, in equally weighted rows",
    "quality_problem": "the worst kind of bad values",
    "quality_share": "share of these values, 0 to 1",
    "quality_limit": "limit of that share, 0 to 1",
    "quality_p_value": "probability of such a share, or a larger one, by chance",
    "quality_rows": "rows of that comparison",
    "broken": "true if quality_share is above its limit",
    "model_version": "version that made most of the day's decisions",
}

PERFORMANCE = {
    "days": "matured days together, the first line is the day alone",
    "first_day": "the first of these days",
    "model_version": "version that made most of the day's decisions",
    "validation_roc_auc": "AUC of that version at validation",
    "validation_roc_auc_standard_error": "standard error of the AUC at validation",
    "rows": "matured rows",
    "bads": "defaults among them",
    "mean_pd": "mean PD, 0 to 1",
    "bad_rate": "bad rate, 0 to 1",
    "pd_variance": "mean of PD (1 - PD)",
    "roc_auc": "realised AUC",
    "roc_auc_standard_error": "standard error of the realised AUC",
    "expected_roc_auc": "AUC that the PDs imply for the same rows",
    "expected_roc_auc_standard_error": "standard error of the implied AUC",
}
REALISED = ("bads", "bad_rate", "roc_auc", "roc_auc_standard_error")
EXPECTED = ("mean_pd", "pd_variance", "expected_roc_auc", "expected_roc_auc_standard_error")


def schema_of(
    table: pd.DataFrame | pa.Schema, portfolio: Portfolio, descriptions: Mapping[str, str]
) -> dict[str, dg.TableSchemaMetadataValue]:
    """The metadata of a table's columns.

    Args:
        table: the table, or the schema of its file.
        portfolio: describes its own fields.
        descriptions: of other columns.
    """
    known = {
        portfolio.identifier: "the customer",
        portfolio.target: f"outcome, 1 = bad: {portfolio.target_description}",
        **{field.name: _meaning(field) for field in portfolio.fields},
        **descriptions,
    }
    valid = {field.name: field for field in portfolio.fields}
    columns = [
        dg.TableColumn(
            name, kind, known.get(name), _constraints(valid[name]) if name in valid else None
        )
        for name, kind in _types(table)
    ]
    return {SCHEMA: dg.MetadataValue.table_schema(dg.TableSchema(columns))}


def lineage_of(
    sources: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, dg.TableColumnLineage]:
    """The metadata of the columns that a table's columns come from.

    Args:
        sources: asset and column of each source, by column; a column without any is left out.
    """
    lineage = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey(asset), column_name=name)
            for asset, name in of_column
        ]
        for column, of_column in sources.items()
        if of_column
    }
    return {LINEAGE: dg.TableColumnLineage(lineage)}


def same_columns(asset: str, names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Columns that are those of another asset, for `lineage_of`."""
    return {name: [(asset, name)] for name in names}


def _meaning(field: Field) -> str:
    return f"{field.description}, {field.unit}" if field.unit else field.description


def _constraints(field: Field) -> dg.TableColumnConstraints:
    return dg.TableColumnConstraints(nullable=not field.required, other=[field.valid])


def _types(table: pd.DataFrame | pa.Schema) -> list[tuple[str, str]]:
    if isinstance(table, pa.Schema):
        return [(field.name, str(field.type)) for field in table]
    return [(str(name), str(kind)) for name, kind in table.dtypes.items()]
