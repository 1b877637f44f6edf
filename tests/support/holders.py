"""Stand-ins of what holds the champion."""

from serving.inference.champion_holder import LoadedChampion


class Holding:
    """One champion, for good."""

    why_none = ""

    def __init__(self, champion: LoadedChampion) -> None:
        self.current = champion
