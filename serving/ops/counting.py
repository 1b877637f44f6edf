"""What the metrics are told of decisions and of the champion."""

from serving.inference.champion_holder import LoadedChampion
from serving.inference.decider import Group
from serving.ops.metrics import Metrics


class Counting:
    """Looks on at the decider, and at the holder of the champion.

    Args:
        metrics: what counts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def decided(self, group: Group) -> None:
        """A group of decisions is on the disk."""
        champion, decisions = group.champion, group.decisions
        self._metrics.observe_decisions(
            champion.record.model_version,
            decisions.prediction.tolist(),
            decisions.default_probability.tolist(),
            degraded=champion.degraded,
        )
        self._metrics.observe_group(
            len(group.answers), group.write_seconds, group.oldest_received_at
        )

    def not_written(self) -> None:
        """A group could not be brought to the disk."""
        self._metrics.observe_log_error()

    def serving(self, champion: LoadedChampion) -> None:
        """A champion answers from now on."""
        record = champion.record
        self._metrics.observe_champion(
            record.model_version, record.bundle_sha256, degraded=champion.degraded
        )

    def looked(self, problem: str | None) -> None:
        """The champion in force was looked for: why it could not be read or loaded, or None."""
        if problem is None:
            self._metrics.observe_champion_well()
        else:
            self._metrics.observe_champion_problem(refused=False)

    def refused(self) -> None:
        """A champion could not be loaded or proven."""
        self._metrics.observe_champion_problem(refused=True)
