"""What a segment of the decision log begins with."""

from creditrisk_assets.decisions.log import SegmentHeader, new_name
from creditrisk_assets.scoring.bundle import ChampionRecord, DecisionRule

DAY = "2026-03-01"
CHAMPION = ChampionRecord(
    mlflow_uri="models:/credit_default/3",
    artifact_uri="nowhere",
    model_version="3",
    bundle_sha256="0" * 64,
    verdict="first",
    reason="the first",
    rule=DecisionRule(cut_off=0.2, reference=[1.0, None]),
)


def header() -> SegmentHeader:
    return SegmentHeader(
        name=new_name(), day=DAY, portfolio="tiny", champion=CHAMPION, degraded=False, keyed=True
    )
