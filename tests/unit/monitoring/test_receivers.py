"""The file of routes: what is refused, and what a message names."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.receivers import RoutesError, read_routes, receivers_of
from creditrisk_assets.settings import Settings

SLACK = """
[[receivers]]
name = "desk"
kind = "slack"
url = "${SLACK_URL}"
"""
MAIL = """
[[receivers]]
name = "mail"
kind = "email"
host = "mail"
sender = "a@b.example"
recipients = ["c@d.example"]
"""
URL = {"SLACK_URL": "https://hooks.slack.example/T0/SECRET"}


def written(folder: Path, text: str) -> Path:
    file = folder / "alerts.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "receivers: Field required"),
        ("receivers = 3", "receivers is 3: "),
        ("[[receivers", "is not TOML"),
        ('[[receivers]]\nname = "x"\nkind = "pigeon"', "does not match any of the expected tags"),
        (SLACK.replace('"desk"', '"The Desk"'), "receivers.0.name is 'The Desk': "),
        (
            SLACK + 'tiers = ["urgent"]',
            "receivers.0.tiers.0 is 'urgent': Input should be 'page now'",
        ),
        (SLACK + "tiers = []", "receivers.0.tiers"),
        (
            SLACK + 'checks = ["score_is_stable"]',
            "'score_is_stable' is no check; valid: score_distribution_is_stable",
        ),
        (SLACK + "channel = 3", "receivers.0.channel is 3: Extra inputs are not permitted"),
        (
            SLACK.replace("${SLACK_URL}", "https://hooks.slack.example/T0/SECRET"),
            "receivers.0.url is a secret in the file; valid: ${NAME}",
        ),
        (SLACK.replace("SLACK_URL", "OTHER"), "receivers.0.url refers to OTHER, which the"),
        (SLACK.replace("SLACK_URL", "file:/no/such"), "receivers.0.url refers to a file: "),
        (
            SLACK.replace("${SLACK_URL}", "ftp-${SLACK_URL}"),
            "receivers.0.url is 'ftp-${SLACK_URL}': valid: an address that begins with http://",
        ),
        (MAIL.replace("c@d.example", "nobody"), "'nobody' is no address of mail; valid: name@host"),
        (MAIL + "port = 0", "receivers.0.port is 0: "),
        (MAIL + 'user = "u"', "valid: user and password, or neither"),
        (
            MAIL + 'user = "u"\npassword = "${SLACK_URL}"\ntls = "none"',
            "tls is none with a password; valid: starttls or tls",
        ),
        (MAIL + 'password = "plain"', "receivers.0.password is a secret in the file"),
    ],
)
def test_a_mistake_is_refused_with_its_field_and_what_is_valid(
    tmp_path: Path, text: str, message: str
) -> None:
    """A route that is wrong is noticed at the first alarm otherwise, and then by nobody."""
    with pytest.raises(RoutesError) as refused:
        read_routes(written(tmp_path, text), URL)
    assert message in str(refused.value)
    assert str(tmp_path / "alerts.toml") in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match=r"none\.toml cannot be read"):
        read_routes(tmp_path / "none.toml", {})


def test_a_secret_comes_from_a_variable_or_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("https://hooks.slack.example/T0/SECRET\n")
    by_file = SLACK.replace("SLACK_URL", f"file:{tmp_path / 'secret'}")
    (from_file,) = read_routes(written(tmp_path, by_file), {})
    (from_variable,) = read_routes(written(tmp_path, SLACK), URL)
    assert from_file == from_variable
    assert from_file.place == "hooks.slack.example"
    assert "SECRET" not in repr(from_file)


def test_a_route_takes_its_tiers_and_checks_and_by_default_all(tmp_path: Path) -> None:
    (every,) = read_routes(written(tmp_path, SLACK), URL)
    assert every.takes(Tier.NOTE, "sensors_tick")
    text = SLACK + 'tiers = ["page now", "look today"]\nchecks = ["sensors_tick"]\n'
    (some,) = read_routes(written(tmp_path, text), URL)
    assert some.takes(Tier.PAGE, "sensors_tick")
    assert not some.takes(Tier.NOTE, "sensors_tick")
    assert not some.takes(Tier.PAGE, "data_is_fresh")


def test_the_webhook_of_the_settings_and_the_routes_stand_side_by_side_under_their_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_URL", URL["SLACK_URL"])
    settings = Settings(
        alert_webhook=SecretStr("https://hook.example"),
        alert_routes=written(tmp_path, SLACK),
    )
    assert [(one.name, one.kind) for one in receivers_of(settings)] == [
        ("webhook", "webhook"),
        ("desk", "slack"),
    ]
    assert receivers_of(Settings()) == ()
    for text in (SLACK.replace('"desk"', '"webhook"'), SLACK + SLACK):
        written(tmp_path, text)
        with pytest.raises(RoutesError, match="is there twice; valid: a name of its own"):
            receivers_of(settings)


def test_what_was_refused_is_offered_again_only_after_a_change_of_the_place(tmp_path: Path) -> None:
    (first,) = read_routes(written(tmp_path, SLACK), URL)
    (same,) = read_routes(written(tmp_path, SLACK + 'tiers = ["note"]'), URL)
    (other,) = read_routes(written(tmp_path, SLACK), {"SLACK_URL": "https://other.example"})
    assert first.digest == same.digest
    assert first.digest != other.digest
