"""Everything that is watched, in one table: how soon a person must look, and what they do then.

The page `docs/guide/monitor.md` is held against this table by a test; the checks take their
severity and their advice from it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """How soon a person must look at an alarm."""

    PAGE = "page now"
    TODAY = "look today"
    NOTE = "note"


@dataclass(frozen=True)
class Watch:
    """One thing that is watched.

    Attributes:
        check: name of the asset check.
        asset: the asset that it is on.
        tier: how soon a person must look when it fails.
        question: what it answers.
        action: what to do when it fails.
        failure: what is wrong when it fails. A check is named by its good state, and the name of
            one that failed says the opposite of what was found.
        asks_for_retraining: whether its failure is evidence that triage weighs.
        of_the_loop: whether it asks if the loop is alive, which says nothing of a model.
        blocks: whether what comes after its asset waits until it holds.
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
        """Whether its failure is more than a warning: Dagster lets a warning block nothing."""
        return self.blocks or self.tier is Tier.PAGE


WATCHES = (
    Watch(
        "history_satisfies_contract",
        "raw_data",
        Tier.TODAY,
        "Has every row of the history the contract's columns, types, ranges and codes?",
        "Nothing is trained: read the named lines and correct the file; the champion in force "
        "goes on meanwhile.",
        blocks=True,
        failure="The history breaks the contract",
    ),
    Watch(
        "production_batch_rows_reconcile",
        "production_batch",
        Tier.PAGE,
        "Is every row of the day's files either accepted, rejected with a reason, or an exact "
        "duplicate?",
        "The day is blocked: a row was lost. Keep the file and report it; this must not happen.",
        blocks=True,
        failure="Rows of the day are unaccounted for",
    ),
    Watch(
        "production_batch_rows_are_mostly_accepted",
        "production_batch",
        Tier.PAGE,
        "Could every file of the day be read, and is the share of rejected rows under the limit?",
        "The day is blocked and not scored: read the quarantine, have the file sent again; the "
        "day then runs by itself.",
        blocks=True,
        failure="Too much of the day was rejected or unreadable",
    ),
    Watch(
        "batch_is_not_an_earlier_day_again",
        "production_batch",
        Tier.TODAY,
        "Are the day's rows new, and not those of an earlier day delivered again?",
        "Ask the source whether the delivery of the named day was repeated; land the right file, "
        "and the day runs again.",
        failure="A delivery was repeated",
    ),
    Watch(
        "outcomes_rows_reconcile",
        "outcomes",
        Tier.PAGE,
        "Is every row of the day's outcomes either accepted, rejected with a reason, or an exact "
        "duplicate?",
        "The outcomes are blocked: a row was lost. Keep the file and report it; this must not "
        "happen.",
        blocks=True,
        failure="Rows of the outcomes are unaccounted for",
    ),
    Watch(
        "outcomes_rows_are_mostly_accepted",
        "outcomes",
        Tier.TODAY,
        "Could every file of outcomes be read, and is the share of rejected rows under the limit?",
        "The outcomes are blocked: read the quarantine and have the file sent again.",
        blocks=True,
        failure="Too much of the outcomes was rejected or unreadable",
    ),
    Watch(
        "champion_records_agree",
        "champion",
        Tier.PAGE,
        "Do ledger, MLflow alias, asset and bundle name the same champion?",
        "Run `creditrisk champion verify`; the next run of `champion` puts an alias right, a "
        "changed bundle must be rolled back.",
        blocks=True,
        failure="The records of the champion disagree",
    ),
    Watch(
        "past_decisions_replay",
        "champion",
        Tier.PAGE,
        "Do past decisions come out again to the bit?",
        "Run `creditrisk replay --date` on the named day: a bundle or a kept decision was changed.",
        failure="Past decisions do not come out again",
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
        "Look at which features moved with it; whether it matters is seen in the estimated and "
        "realised performance.",
        asks_for_retraining=True,
        failure="The score has shifted",
    ),
    Watch(
        "feature_distributions_are_stable",
        "drift_report",
        Tier.NOTE,
        "Is every field distributed as it was in training?",
        "Ask the source of the top movers whether it changed; nothing is retrained for it alone.",
        asks_for_retraining=True,
        failure="Fields have shifted",
    ),
    Watch(
        "data_quality_is_stable",
        "drift_report",
        Tier.TODAY,
        "Are new codes, missing and out-of-range values, and rejected rows as rare as in training?",
        "Ask the source of the named field; correct the file and land it again; the corrected "
        "records are then decided anew.",
        failure="Data quality is down",
    ),
    Watch(
        "estimated_performance_holds",
        "production_scores",
        Tier.TODAY,
        "Does the model, if its PDs are right, still rank this population as it did at validation?",
        "Wait for outcomes if only the population moved; look for a broken field if the score "
        "collapsed.",
        failure="Estimated discrimination is down",
    ),
    Watch(
        "live_decisions_treat_groups_alike",
        "production_scores",
        Tier.TODAY,
        "Is the adverse-impact ratio of every protected group above the line?",
        "Read the fairness section of the model card; a policy or a population has moved. No "
        "cut-off is set by group.",
        failure="A group is under the adverse-impact line",
    ),
    Watch(
        "batch_equals_online",
        "production_scores",
        Tier.PAGE,
        "Does the day's batch give the customers of the API the PDs that the API gave them?",
        "Replay one of the named decisions; roll back if the champion's bundle is not what it "
        "should be.",
        failure="Batch and API do not give the same PDs",
    ),
    Watch(
        "ranking_is_as_at_validation",
        "performance_report",
        Tier.TODAY,
        "Does the score rank the matured customers as it did at validation?",
        "Triage decides: a refit when the ranking fell by more than the population explains.",
        asks_for_retraining=True,
        failure="Discrimination is down",
    ),
    Watch(
        "default_rate_is_as_predicted",
        "performance_report",
        Tier.TODAY,
        "Do bads come at the rate that the PDs say?",
        "Triage decides: a recalibration when only the level is off.",
        asks_for_retraining=True,
        failure="Calibration is off",
    ),
    Watch(
        "sensors_tick",
        "champion",
        Tier.PAGE,
        "Has every sensor ticked lately, and did its last tick not fail?",
        "Restart the daemon if none ticks; read the named sensor's error in the Dagster UI; start "
        "it again if it was stopped.",
        of_the_loop=True,
        failure="A sensor is late, stopped or failing",
    ),
    Watch(
        "no_run_hangs",
        "champion",
        Tier.TODAY,
        "Is every run that is under way younger than the limit?",
        "Terminate the named run in the Dagster UI and start it again; look at the queue if it "
        "never started.",
        of_the_loop=True,
        failure="A run hangs",
    ),
    Watch(
        "no_run_failed",
        "champion",
        Tier.TODAY,
        "Did the last run of every job and day end without a failure that no check explains?",
        "Read the named run's error in the Dagster UI, cure it, start it again; a later run of "
        "that job and day ends the alarm.",
        of_the_loop=True,
        failure="A run failed",
    ),
    Watch(
        "api_serves_the_champion",
        "champion",
        Tier.PAGE,
        "Does the API answer, and by the version and bundle that the champion asset names?",
        "Start the API if it does not answer; read `/ready`, which says why it keeps another "
        "champion.",
        of_the_loop=True,
        failure="The API does not serve the champion",
    ),
    Watch(
        "data_is_fresh",
        "champion",
        Tier.TODAY,
        "Did every business day's file come and get scored?",
        "Ask the source for the missing days; look for blocked days in `creditrisk status`.",
        of_the_loop=True,
        failure="Data is missing",
    ),
)

BY_CHECK = {watch.check: watch for watch in WATCHES}
