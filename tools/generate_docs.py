"""Generates the parts of the documents that the code knows, the comments of policy.toml, and
.env.example: `python -m tools.generate_docs`, or `make docs`.

A page holds such a part between `<!-- generated: NAME -->` and `<!-- end -->`. The limits in
policy.toml stay. With `--check` nothing is written, and a file that differs ends the command with
exit code 1.
"""

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from creditrisk_assets.monitoring.check_catalogue import WATCHES
from creditrisk_assets.policy import Policy
from creditrisk_assets.settings import POLICY_FILE, ServingLimits, ServingSettings, Settings

REPOSITORY = Path(__file__).parent.parent
ENV_EXAMPLE = ".env.example"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def checks() -> str:
    """The catalogue of checks."""
    header = ("check", "on", "tier", "question", "when it fails", "what to do")
    rows = [
        (
            f"`{watch.check}`",
            f"`{watch.asset}`",
            watch.tier.value,
            watch.question,
            watch.failure,
            watch.action,
        )
        for watch in WATCHES
    ]
    return table(header, rows)


def settings() -> str:
    """The environment variables."""
    rows = [
        (f"`{name}`", shown(field), str(field.description))
        for model in (Settings, ServingSettings)
        for name, field in sorted(variables(model).items())
    ]
    return table(("variable", "default", "meaning"), rows)


def serving_limits() -> str:
    """The names in CREDITRISK_LIMITS."""
    rows = [
        (f"`{name}`", shown(field), str(field.description))
        for name, field in ServingLimits.model_fields.items()
    ]
    return table(("name", "default", "meaning"), rows)


def policy() -> str:
    """The limits of policy.toml."""
    rows = [
        (f"`{section}.{name}`", shown(field), str(field.description))
        for section, limits in Policy()
        for name, field in type(limits).model_fields.items()
    ]
    return table(("limit", "default", "meaning"), rows)


def variables(model: type[BaseSettings]) -> dict[str, FieldInfo]:
    """The environment variables of a model of settings."""
    return {
        str(alias.choices[0])
        if isinstance(alias := field.validation_alias, AliasChoices)
        else f"CREDITRISK_{name.upper()}": field
        for name, field in model.model_fields.items()
    }


def shown(field: FieldInfo) -> str:
    """A default; none where the description says it."""
    default = field.default
    if field.default_factory is not None or default is None or isinstance(default, BaseModel):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


PARTS: dict[str, Callable[[], str]] = {
    "checks": checks,
    "settings": settings,
    "serving_limits": serving_limits,
    "policy": policy,
}


def policy_file() -> dict[Path, str]:
    """The policy file, its comments made anew; a limit that it leaves out gets its default."""
    file = REPOSITORY / POLICY_FILE
    return {file: (Policy.read(file) if file.exists() else Policy()).toml()}


ENV_HEAD = """\
# Settings of docker-compose.yml: copy this file to .env, and take away the # before a setting.
# docs/guide/settings.md has the same settings, docs/guide/deploy.md the containers.

# Ports on this machine's loopback address.
# API_PORT=8000
# DAGSTER_PORT=3000
# MLFLOW_PORT=5000

# The image of Python to build from, and an index that pip uses in the build.
# PYTHON_IMAGE=python:3.11-slim
# PIP_INDEX_URL=

# The served shape: take away the # before all nine, and choose the passwords. Letters and digits
# only: the first is a part of an address.
# COMPOSE_PROFILES=postgres,s3
# POSTGRES_PASSWORD=
# CREDITRISK_DATABASE_URL=postgresql://creditrisk:${POSTGRES_PASSWORD}@postgres/creditrisk
# CREDITRISK_DATA_DIR=s3://creditrisk/store
# MLFLOW_TRACKING_URI=http://mlflow:5000
# AWS_ENDPOINT_URL=http://s3:8333
# AWS_ACCESS_KEY_ID=creditrisk
# AWS_SECRET_ACCESS_KEY=
# AWS_DEFAULT_REGION=us-east-1

# More profiles for COMPOSE_PROFILES. `monitoring`: Prometheus and Grafana, whose user is `admin`;
# the file has an API key with the scope `read`, once there are keys.
# PROMETHEUS_PORT=9090
# GRAFANA_PORT=3001
# GRAFANA_PASSWORD=admin
# METRICS_KEY_FILE=

# `tls`: a proxy with TLS and login, for other machines. The folder has tls.crt, tls.key and
# passwords, a file of `htpasswd -B`.
# API_TLS_PORT=8443
# DAGSTER_TLS_PORT=3443
# MLFLOW_TLS_PORT=5443
# TLS_FOLDER=./tls

# Other images for the services of the profiles.
# POSTGRES_IMAGE=postgres:17
# S3_IMAGE=chrislusf/seaweedfs:4.48
# PROMETHEUS_IMAGE=prom/prometheus:v3.5.0
# GRAFANA_IMAGE=grafana/grafana:12.2.0
# NGINX_IMAGE=nginx:1.28
"""

SET_BY_COMPOSE = frozenset(
    {
        "CREDITRISK_CHAMPION_SOURCE",
        "CREDITRISK_HOST",
        "CREDITRISK_OPEN_BEYOND_LOOPBACK",
        "CREDITRISK_PORT",
        "CREDITRISK_WATCH_API_URL",
    }
)
"""Settings that docker-compose.yml gives a value itself, so that one in .env has no effect."""


def env_example() -> str:
    """The file of settings for Compose, every one commented out."""
    parts = [ENV_HEAD]
    for model in (Settings, ServingSettings):
        for name, field in sorted(variables(model).items()):
            note = " docker-compose.yml sets it." if name in SET_BY_COMPOSE else ""
            text = textwrap.wrap(f"{field.description}{note}", 98)
            default = shown(field).strip("`")
            parts.append("".join(f"# {line}\n" for line in text) + f"# {name}={default}\n")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """The pages that have such parts, with these made anew."""
    every = {page: page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs").rglob("*.md")}
    return {
        page: PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)
        for page, text in every.items()
        if PART.search(text)
    }


def main(check: bool) -> int:
    """Write the pages, or compare them; the exit code."""
    different = []
    files = {**pages(), **policy_file(), REPOSITORY / ENV_EXAMPLE: env_example()}
    for page, new in files.items():
        if not page.exists() or page.read_text(encoding="utf-8") != new:
            different.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    for page in different:
        sys.stdout.write(f"{page.relative_to(REPOSITORY)} {'differs' if check else 'written'}\n")
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
