"""The catalogue of checks: urgency, question, advice and failure sentence of each. The checks take
severity and advice from it, and a test compares it with `docs/guide/monitor.md`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """The urgency of an alarm."""

    PAGE = "page now"
    TODAY = "look today"
    NOTE = "note"


@dataclass(frozen=True)
class Watch:
    """An entry of the catalogue.

    Attributes:
        check: name of the asset check, a sentence of the good state.
        asset: the asset that it is on.
        tier: how soon a person must look when it fails.
        question: the question that it answers.
        action: advice when it fails.
        failure: short statement of what is wrong when it fails; every text about a failure begins
            with it, because the check's name says the opposite.
        asks_for_retraining: whether its failure is evidence for triage.
        of_the_loop: whether it checks the loop instead of a model.
        blocks: whether its failure stops everything downstream of its asset.
    """

    check: str
    asset: str
    tier: Tier
    question: str
    action: str
    failure: str
    asks_for_retraining: bool = False
    of_the_loop: bool = False
    blocks: bool = False

    @property
    def is_an_error(self) -> bool:
        """Whether its failure is an error: a warning blocks nothing in Dagster."""
        return self.blocks or self.tier is Tier.PAGE

    def failure_summary(self, summary: object) -> str:
        """The line for a failed evaluation: what is wrong, then what was found.

        Args:
            summary: the evaluation's own line; None or empty if it has none.
        """
        line = "" if summary is None else str(summary)
        if not line or line.startswith(self.failure):
            return line or self.failure
        return f"{self.failure}: {line}"


WATCHES = (
    Watch(
        "history_satisfies_contract",
        "raw_data",
        Tier.TODAY,
        "Does every row of the history satisfy the contract's columns, types, ranges and codes?",
        "No model is trained; the champion stays in force. Correct the named lines of the file.",
        blocks=True,
        failure="The history breaks the contract",
    ),
    Watch(
        "production_batch_rows_reconcile",
        "production_batch",
        Tier.PAGE,
        "Is every row of the day's files accepted, rejected with a reason, or an exact duplicate?",
        "The day is blocked because a row was lost, which is a fault of the system. Save the file "
        "and report it.",
        blocks=True,
        failure="Rows of the day are unaccounted for",
    ),
    Watch(
        "production_batch_rows_are_mostly_accepted",
        "production_batch",
        Tier.PAGE,
        "Is every file of the day readable, and is the share of rejected rows under the limit?",
        "The day is blocked and not scored. Read the quarantine and ask the source for a correct "
        "file; the day then runs again.",
        blocks=True,
        failure="Too many rows of the day are rejected or unreadable",
    ),
    Watch(
        "batch_is_not_an_earlier_day_again",
        "production_batch",
        Tier.TODAY,
        "Are the day's rows new, and not those of an earlier day?",
        "Ask the source whether it sent the named day again. Land the right file; the day then "
        "runs again.",
        failure="The day repeats an earlier delivery",
    ),
    Watch(
        "outcomes_rows_reconcile",
        "outcomes",
        Tier.PAGE,
        "Is every row of the day's outcomes accepted, rejected with a reason, or an exact "
        "duplicate?",
        "The outcomes are blocked because a row was lost, which is a fault of the system. Save "
        "the file and report it.",
        blocks=True,
        failure="Rows of the outcomes are unaccounted for",
    ),
    Watch(
        "outcomes_rows_are_mostly_accepted",
        "outcomes",
        Tier.TODAY,
        "Is every file of outcomes readable, and is the share of rejected rows under the limit?",
        "The outcomes are blocked. Read the quarantine and ask the source for a correct file.",
        blocks=True,
        failure="Too many outcomes are rejected or unreadable",
    ),
    Watch(
        "champion_records_agree",
        "champion",
        Tier.PAGE,
        "Do ledger, MLflow alias, asset and bundle name the same champion?",
        "Run `creditrisk champion verify`. The next run of `champion` corrects a wrong alias; roll "
        "back a changed bundle.",
        blocks=True,
        failure="The records of the champion disagree",
    ),
    Watch(
        "past_decisions_replay",
        "champion",
        Tier.PAGE,
        "Does a replay of past decisions give the same bits?",
        "A bundle or a stored decision was changed. Run `creditrisk replay --date` on the named "
        "day.",
        failure="Past decisions cannot be reproduced",
    ),
    Watch(
        "challenger_agrees_in_shadow",
        "candidate_model",
        Tier.NOTE,
        "Does the waiting challenger score the champion's decisions of the last days like it?",
        "Read the challenger's verdict before you promote it by hand; the gate holds the same "
        "test.",
        failure="The challenger differs in shadow",
    ),
    Watch(
        "score_distribution_is_stable",
        "drift_report",
        Tier.TODAY,
        "Is the score distributed as it was in training?",
        "Look for the features that shifted with it. Estimated and realised performance show "
        "whether the model suffers.",
        asks_for_retraining=True,
        failure="The score has shifted",
    ),
    Watch(
        "feature_distributions_are_stable",
        "drift_report",
        Tier.NOTE,
        "Is every field distributed as it was in training?",
        "Ask the source of the top movers about a change. This check alone starts no retrain.",
        asks_for_retraining=True,
        failure="Fields have shifted",
    ),
    Watch(
        "data_quality_is_stable",
        "drift_report",
        Tier.TODAY,
        "Are new codes, missing and out-of-range values, and rejected rows as rare as in training?",
        "Ask the source of the named field. Correct the file and land it again; the corrected "
        "records are then decided again.",
        failure="Data quality is down",
    ),
    Watch(
        "segments_are_stable",
        "segment_report",
        Tier.TODAY,
        "Is every field of every segment distributed as in training?",
        "Ask the source of the named segment about a change. If the whole day failed too, look "
        "there first. No retrain starts by itself.",
        failure="Segments have shifted",
    ),
    Watch(
        "segments_are_approved_as_in_training",
        "segment_report",
        Tier.NOTE,
        "Is the approval rate of every segment as in training at the same cut-off?",
        "See whether the named segment's customers changed. No cut-off is set by segment.",
        failure="Approvals have moved in a segment",
    ),
    Watch(
        "estimated_performance_holds",
        "production_scores",
        Tier.TODAY,
        "Is the AUC estimated from the PDs as good as the AUC at validation?",
        "Wait for outcomes if only the population shifted; look for a broken field if the score "
        "collapsed.",
        failure="Estimated discrimination is down",
    ),
    Watch(
        "live_decisions_treat_groups_alike",
        "production_scores",
        Tier.TODAY,
        "Is the adverse-impact ratio of every protected group above the line?",
        "A policy or the population changed: read the fairness section of the model card. No "
        "cut-off is set by group.",
        failure="A group is under the adverse-impact line",
    ),
    Watch(
        "batch_equals_online",
        "production_scores",
        Tier.PAGE,
        "Does the day's batch give the API's customers the same PDs as the API did?",
        "Replay one of the named decisions. Roll back if the champion's bundle is damaged.",
        failure="Batch and API give different PDs",
    ),
    Watch(
        "ranking_is_as_at_validation",
        "performance_report",
        Tier.TODAY,
        "Is the AUC of the matured customers as good as the AUC at validation?",
        "Triage decides: a refit if the AUC fell by more than the population explains.",
        asks_for_retraining=True,
        failure="Discrimination is down",
    ),
    Watch(
        "default_rate_is_as_predicted",
        "performance_report",
        Tier.TODAY,
        "Is the bad rate of the matured customers equal to their mean PD?",
        "Triage decides: a recalibration if only the level is off.",
        asks_for_retraining=True,
        failure="Calibration is off",
    ),
    Watch(
        "segments_perform_as_predicted",
        "segment_performance",
        Tier.TODAY,
        "Do bad rate and AUC of every segment agree with its PDs and its validation?",
        "Read the named segment's outcomes beside the worst slice. Retrain by hand if it stays: a "
        "segment starts no retrain by itself.",
        failure="The model is off in a segment",
    ),
    Watch(
        "sensors_tick",
        "champion",
        Tier.PAGE,
        "Does every sensor tick in time, and did its last tick succeed?",
        "Restart the daemon if no sensor ticks. Read the named sensor's error in the Dagster UI; "
        "start the sensor if it is stopped.",
        of_the_loop=True,
        failure="A sensor is late, stopped or failing",
    ),
    Watch(
        "no_run_hangs",
        "champion",
        Tier.TODAY,
        "Is every unfinished run younger than the limit?",
        "Terminate the named run in the Dagster UI and start it again. Look at the queue if it "
        "never started.",
        of_the_loop=True,
        failure="A run hangs",
    ),
    Watch(
        "no_run_failed",
        "champion",
        Tier.TODAY,
        "Did the last run of every job and day succeed, or does a failed check explain its "
        "failure?",
        "Read the named run's error in the Dagster UI, fix its cause and start it again. A later "
        "run of that job and day ends the alarm.",
        of_the_loop=True,
        failure="A run failed",
    ),
    Watch(
        "api_serves_the_champion",
        "champion",
        Tier.PAGE,
        "Does the API answer with the version and bundle of the champion asset?",
        "Start the API if it does not answer. Its `/ready` says why it serves another champion.",
        of_the_loop=True,
        failure="The API does not serve the champion",
    ),
    Watch(
        "data_is_fresh",
        "champion",
        Tier.TODAY,
        "Did the file of every business day arrive, and was it scored?",
        "Ask the source for the missing days. `creditrisk status` lists blocked days.",
        of_the_loop=True,
        failure="Data is missing",
    ),
)

BY_CHECK = {watch.check: watch for watch in WATCHES}
