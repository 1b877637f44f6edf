"""What the README says of the project, held against the project."""

import re

from creditrisk_assets.settings import ServingSettings, Settings
from tests.support.places import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_every_setting_is_in_the_readme_and_nothing_else_is() -> None:
    """A setting that nobody can find is none; one that is gone misleads."""
    told = {
        name
        for name in re.findall(r"`CREDITRISK_([A-Z_]+)`", README)
        if not name.startswith("TEST_")
    }
    known = {name.upper() for model in (Settings, ServingSettings) for name in model.model_fields}
    assert told == known - {"MLFLOW_TRACKING_URI"}


def test_every_file_that_the_readme_points_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(
        re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    )
    assert set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)) <= targets
