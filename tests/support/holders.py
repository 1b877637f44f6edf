"""Stand-ins of what holds the champion."""

from creditrisk_assets.scoring.bundle import Bundle, DecisionRule
from creditrisk_assets.scoring.runtime import Runtime
from serving.inference.champion_holder import LoadedChampion
from tests.support.examples import champion_of


def loaded(bundle: Bundle, rule: DecisionRule | None = None) -> LoadedChampion:
    """Version 1, whose graphs decide."""
    record = champion_of(bundle, "1", rule)
    return LoadedChampion(record, Runtime(bundle, record.rule))


class Holding:
    """One champion, for good."""

    why_none = ""

    def __init__(self, champion: LoadedChampion) -> None:
        self.current = champion
