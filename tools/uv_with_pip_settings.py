"""Runs uv by pip's settings of package indexes:
`python tools/uv_with_pip_settings.py pip install ...`.

`make setup` installs with uv, which reads neither pip.conf nor PIP_* variables. An operator who
names an internal index for pip would otherwise name it a second time. `pip config list` gives
pip's files and variables as pip itself reads them. This script hands them to uv in its environment,
where a credential shows neither on the screen nor in the list of processes. A variable of uv that
is already set wins over the same setting of pip.

By default uv takes a package from the first index that has its name; pip takes the best file of all
indexes, as uv does by the strategy `unsafe-best-match`. That strategy is safe only for requirements
with hashes, so `make lock` does not use this script.

Put here what says where packages come from. Pip's other settings (constraints, caches) have no
effect on a complete lock.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECTIONS = ("global", "install", ":env:")
"""The sections of pip's settings that hold for an installation; a later one wins."""
TRUE = ("1", "on", "t", "true", "y", "yes")
"""Values that pip reads as a switch that is on."""
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
"""With any of these the operator has named uv's indexes; pip's would mix with them."""


def pip_settings(listing: str) -> dict[str, str]:
    """The settings in the output of `pip config list`, by the names of pip's options. Pip passes
    over empty ones.
    """
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if separator and section in sections and (setting := ast.literal_eval(value).strip()):
            sections[section][name] = setting
    return {name: value for section in SECTIONS for name, value in sections[section].items()}


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that make uv look where pip looks, without those that uv has already."""
    variables: dict[str, str] = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    if not any(environment.get(name) for name in INDEX_VARIABLES):
        if index := settings.get("index-url", settings.get("pypi-url")):
            variables["UV_DEFAULT_INDEX"] = index
        if extra := settings.get("extra-index-url"):
            variables["UV_INDEX"] = " ".join(extra.split())
    if links := [place for place in settings.get("find-links", "").split() if is_there(place)]:
        variables["UV_FIND_LINKS"] = ",".join(without_comma(place) for place in links)
    if hosts := settings.get("trusted-host"):
        variables["UV_INSECURE_HOST"] = " ".join(hosts.split())
    if seconds := settings.get("timeout", settings.get("default-timeout")):
        variables["UV_HTTP_TIMEOUT"] = seconds
    if settings.get("keyring-provider") == "subprocess":
        variables["UV_KEYRING_PROVIDER"] = "subprocess"
    variables = {name: value for name, value in variables.items() if not environment.get(name)}
    # These belong to every program, so a setting for packages alone wins over them.
    if authorities := settings.get("cert", environment.get("REQUESTS_CA_BUNDLE")):
        variables["SSL_CERT_FILE"] = str(Path(authorities).expanduser())
    if identity := settings.get("client-cert"):
        variables["SSL_CLIENT_CERT"] = str(Path(identity).expanduser())
    if proxy := settings.get("proxy"):
        variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
    return variables


def is_there(place: str) -> bool:
    """Whether a place to find links in is an address or exists. Pip passes over a folder that does
    not exist; uv fails.
    """
    return "://" in place or Path(place).exists()


def without_comma(place: str) -> str:
    """A place as an item of a list that commas separate."""
    if "," in place and "://" not in place:
        place = Path(place).absolute().as_uri()
    return place.replace(",", "%2C")


def uv_arguments(settings: Mapping[str, str]) -> list[str]:
    """The options of uv that no variable stands for."""
    return ["--no-index"] if settings.get("no-index", "").lower() in TRUE else []


def main() -> None:
    """Become uv: the uv beside the Python that runs this script, with this script's arguments."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listing = subprocess.run(pip, stdout=subprocess.PIPE, text=True, check=False)
    if listing.returncode:
        sys.exit(listing.returncode)
    settings = pip_settings(listing.stdout)
    uv = str(Path(sys.executable).parent / "uv")
    arguments = [uv, *sys.argv[1:], *uv_arguments(settings)]
    environment = {**os.environ, **uv_environment(settings, os.environ)}
    os.execve(uv, arguments, environment)  # noqa: S606 - a fixed program, in place of this one


if __name__ == "__main__":
    main()
