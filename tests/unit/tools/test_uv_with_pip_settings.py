"""pip's settings become uv's variables."""

from pathlib import Path

import pytest

from tools.uv_with_pip_settings import pip_settings, uv_arguments, uv_environment

STRATEGY = {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_a_variable_wins_over_the_section_of_the_command_and_that_over_the_global_one() -> None:
    listing = (
        ":env:.timeout='30'\n"
        "global.index-url='https://global.example/simple'\n"
        "global.timeout='10'\n"
        "install.index-url='https://install.example/simple'\n"
        "freeze.timeout='20'\n"
    )
    assert pip_settings(listing) == {
        "index-url": "https://install.example/simple",
        "timeout": "30",
    }


def test_an_empty_variable_leaves_the_setting_of_the_file() -> None:
    listing = ":env:.index-url=''\nglobal.index-url='https://global.example/simple'\n"
    assert pip_settings(listing) == {"index-url": "https://global.example/simple"}


def test_an_address_with_an_equals_sign_and_a_quote_stays_whole() -> None:
    listing = 'global.index-url="https://o\'hara:a=b@example.org/simple"\n'
    assert pip_settings(listing) == {"index-url": "https://o'hara:a=b@example.org/simple"}


def test_without_settings_only_the_strategy_is_set() -> None:
    assert uv_environment({}, {}) == STRATEGY


def test_each_setting_has_its_variable(tmp_path: Path) -> None:
    settings = {
        "index-url": "https://a.example/simple",
        "extra-index-url": "\nhttps://b.example/simple\nhttps://c.example/simple",
        "find-links": f"{tmp_path} https://d.example/wheels/",
        "trusted-host": "a.example b.example:8443",
        "cert": "/etc/bank/authorities.pem",
        "client-cert": "~/identity.pem",
        "proxy": "http://proxy.example:3128",
        "timeout": "45",
        "keyring-provider": "subprocess",
    }
    assert uv_environment(settings, {}) == {
        **STRATEGY,
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_FIND_LINKS": f"{tmp_path},https://d.example/wheels/",
        "UV_INSECURE_HOST": "a.example b.example:8443",
        "SSL_CERT_FILE": "/etc/bank/authorities.pem",
        "SSL_CLIENT_CERT": str(Path.home() / "identity.pem"),
        "HTTP_PROXY": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "ALL_PROXY": "http://proxy.example:3128",
        "UV_HTTP_TIMEOUT": "45",
        "UV_KEYRING_PROVIDER": "subprocess",
    }


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        pytest.param(
            {"pypi-url": "https://a.example"}, {"UV_DEFAULT_INDEX": "https://a.example"}, id="index"
        ),
        pytest.param({"default-timeout": "45"}, {"UV_HTTP_TIMEOUT": "45"}, id="timeout"),
    ],
)
def test_pips_second_name_of_an_option_is_known(
    settings: dict[str, str], variables: dict[str, str]
) -> None:
    assert uv_environment(settings, {}) == STRATEGY | variables


def test_pips_authorities_come_from_the_variable_of_requests_where_no_setting_names_them() -> None:
    environment = {"REQUESTS_CA_BUNDLE": "/a.pem", "SSL_CERT_FILE": "/b.pem"}
    assert uv_environment({}, environment)["SSL_CERT_FILE"] == "/a.pem"
    assert uv_environment({"cert": "/c.pem"}, environment)["SSL_CERT_FILE"] == "/c.pem"


@pytest.mark.parametrize(
    "variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"]
)
def test_indexes_named_for_uv_are_not_mixed_with_those_of_pip(variable: str) -> None:
    settings = {"index-url": "https://a.example", "extra-index-url": "https://b.example"}
    assert uv_environment(settings, {variable: "https://uv.example"}) == STRATEGY


def test_a_variable_that_uv_has_already_stays() -> None:
    own = {"UV_HTTP_TIMEOUT": "5", "UV_INDEX_STRATEGY": "first-index", "UV_FIND_LINKS": "/wheels"}
    settings = {"timeout": "45", "find-links": "https://d.example/wheels/"}
    assert uv_environment(settings, own) == {}


def test_a_folder_that_is_not_there_is_passed_over_as_pip_does(tmp_path: Path) -> None:
    assert uv_environment({"find-links": str(tmp_path / "gone")}, {}) == STRATEGY


def test_a_comma_in_a_folders_name_does_not_make_two_folders_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    links = uv_environment({"find-links": str(folder)}, {})["UV_FIND_LINKS"]
    assert links == f"file://{tmp_path}/a%2Cb"


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ("1", ["--no-index"]),
        ("True", ["--no-index"]),
        ("yes", ["--no-index"]),
        ("0", []),
        ("false", []),
    ],
)
def test_no_index_is_a_switch(value: str, arguments: list[str]) -> None:
    assert uv_arguments({"no-index": value}) == arguments
    assert uv_arguments({}) == []
