"""Policies for tests."""

from collections import defaultdict
from typing import Any

from creditrisk_assets.policy import Policy


def policy_of(limits: dict[str, float]) -> Policy:
    """The default policy with other limits, by their names in the file, such as `gate.alpha`; days have no reports."""
    sections: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in ({"reports.rows": 0} | limits).items():
        section, _, limit = name.partition(".")
        sections[section][limit] = value
    return Policy.model_validate(sections)
