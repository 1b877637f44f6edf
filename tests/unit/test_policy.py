"""The policy: its file, what is refused, and what a change is called."""

from pathlib import Path

import pytest

from creditrisk_assets.policy import GateLimits, Policy, PolicyError
from creditrisk_assets.settings import Settings
from tests.support.places import REPOSITORY


def test_the_file_of_the_repository_holds_the_defaults_whose_error_rates_are_measured() -> None:
    assert Policy.read(REPOSITORY / "policy.toml") == Policy()


def test_a_policy_is_read_back_as_it_was_written_and_a_limit_that_is_left_out_has_its_default(
    tmp_path: Path,
) -> None:
    policy = Policy(gate=GateLimits(alpha=0.01))
    file = tmp_path / "policy.toml"
    file.write_text(policy.toml())
    assert Policy.read(file) == policy
    file.write_text("[gate]\nalpha = 0.01\n")
    assert Policy.read(file) == policy
    assert Policy.read(file).sha256 == policy.sha256 != Policy().sha256


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[gate]\nalpha = 0.7\n", "gate.alpha is 0.7: Input should be less than 0.5"),
        ("[gate]\nalpah = 0.1\n", "gate.alpah is 0.1: Extra inputs are not permitted"),
        ("[gates]\n", "gates is {}: Extra inputs are not permitted"),
        ("gate =", "is not TOML"),
    ],
)
def test_a_wrong_limit_is_named_with_its_value(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError) as refused:
        Policy.read(file)
    assert problem in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITRISK_POLICY", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ValueError, match=r"nowhere\.toml cannot be read"):
        Settings()


def test_a_change_is_told_limit_by_limit() -> None:
    now = Policy(gate=GateLimits(alpha=0.01, minimum_bads=60))
    assert now.changes(Policy()) == "gate.minimum_bads 50 to 60, gate.alpha 0.025 to 0.01"
    assert now.changes(now) == ""


def test_the_file_beside_dagster_yaml_is_the_policy_and_an_edit_is_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert Settings().policy == Policy()
    file = tmp_path / "policy.toml"
    file.write_text("[drift]\ndays = 5\n")
    policy = Settings().policy
    assert policy.drift.days == 5
    file.write_text("[drift]\ndays = 7\n")
    assert (policy.drift.days, policy.current().drift.days) == (5, 7)
    assert Policy().current() == Policy()
