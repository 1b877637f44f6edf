"""The receivers of alerts, the routes to them, and the sending of one message. The retries belong
in `alert_outbox`, the shapes of messages in `alert_messages`.

`CREDITRISK_ALERT_WEBHOOK` names one receiver of every alert. `CREDITRISK_ALERT_ROUTES` names a TOML
file of several, each with the urgencies and checks that it takes. The file holds no secret: it
names variables of the environment, or files.
"""

import hashlib
import hmac
import json
import os
import re
import smtplib
import ssl
import time
import tomllib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from creditrisk_assets.monitoring import alert_messages
from creditrisk_assets.monitoring.alerting import Kind
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, Tier
from creditrisk_assets.settings import Settings

POST_TIMEOUT_SECONDS = 10.0
ANSWER_BYTES = 65_536
"""A longer answer is not read."""

PROBLEM_LENGTH = 200
RETRY_STATUSES = (408, 425, 429)
SIGNATURE_HEADER = "X-Creditrisk-Signature"
ID_HEADER = "X-Creditrisk-Alert"
WEBHOOK = "webhook"
"""Name of the receiver of CREDITRISK_ALERT_WEBHOOK."""

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
SMTP_TEMPORARY = range(400, 500)

REFERENCE = re.compile(r"\$\{(file:)?([^}]*)\}")
SECRET_FIELDS = {
    "webhook": ("secret",),
    "slack": ("url",),
    "teams": ("url",),
    "pagerduty": ("routing_key",),
    "email": ("password",),
}
"""Values that the file of routes may only refer to: it may lie in a repository."""


class RoutesError(ValueError):
    """The routes of alerts are not valid; the message names the field and the valid values."""


@dataclass(frozen=True)
class Outcome:
    """The result of sending one message.

    Attributes:
        state: `delivered`, `waiting` (it is sent again) or `refused`.
        problem: the reason if it did not arrive, or not everywhere.
        is_unreachable: True if the receiver gave no answer.
        retry_after: seconds that the receiver asks to wait.
        answer: body of the answer to a delivered message.
    """

    state: Literal["delivered", "waiting", "refused"]
    problem: str | None = None
    is_unreachable: bool = False
    retry_after: float | None = None
    answer: bytes = field(default=b"", repr=False)


class Receiver(BaseModel):
    """A receiver of alerts, and the alerts that it takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Its own name: up to 32 small letters, digits and hyphens.",
    )
    kind: str
    tiers: tuple[Tier, ...] = Field(
        tuple(Tier), min_length=1, description="The urgencies that it takes; by default all."
    )
    checks: tuple[str, ...] | None = Field(
        None, min_length=1, description="The checks that it takes; by default all."
    )

    skips: ClassVar[frozenset[Kind]] = frozenset()
    """Kinds of messages that are not sent to it."""

    @field_validator("checks")
    @classmethod
    def _are_checks(cls, checks: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for check in checks or ():
            if check not in BY_CHECK:
                near = get_close_matches(check, BY_CHECK, 3) or list(BY_CHECK)
                raise ValueError(f"{check!r} is no check; valid: {', '.join(near)}")
        return checks

    def takes(self, tier: str, check: str) -> bool:
        """True if its route has the alerts of a check with this urgency."""
        return tier in self.tiers and (self.checks is None or check in self.checks)

    @property
    def digest(self) -> str:
        """A digest of where and how it is reached. After a change, it is offered again what it has
        refused.
        """
        parts = [
            f"{name}={value.get_secret_value() if isinstance(value, SecretStr) else value}"
            for name, value in self
            if name not in ("name", "tiers", "checks")
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    @abstractmethod
    def place(self) -> str:
        """The host, which may be shown; a full address often holds a token."""

    @abstractmethod
    def send(self, client: httpx.Client, identity: str, content: bytes) -> Outcome:
        """Send one message.

        Args:
            client: for HTTP.
            identity: of the message.
            content: its body as JSON.
        """


class _HttpReceiver(Receiver):
    """A receiver of JSON by POST."""

    url: SecretStr

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        try:
            parsed = httpx.URL(url.get_secret_value())
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ValueError(f"{error}; valid: an address with http:// or https://") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("valid: an address that begins with http:// or https://")
        return url

    @property
    def place(self) -> str:
        """The host."""
        return httpx.URL(self.url.get_secret_value()).host

    def headers(self, identity: str, content: bytes) -> dict[str, str]:
        """HTTP headers of one message."""
        del content
        return {
            "Content-Type": "application/json",
            "User-Agent": "creditrisk",
            ID_HEADER: identity,
        }

    def shape(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The JSON that it takes."""
        return body

    def send(self, client: httpx.Client, identity: str, content: bytes) -> Outcome:
        """Send one message as JSON."""
        sent = json.dumps(self.shape(json.loads(content))).encode()
        return _post(client, self.url.get_secret_value(), sent, self.headers(identity, sent), self)


class WebhookReceiver(_HttpReceiver):
    """A receiver of the body itself, signed if there is a secret."""

    kind: Literal["webhook"] = "webhook"
    secret: SecretStr | None = None

    skips: ClassVar[frozenset[Kind]] = frozenset({Kind.ACKNOWLEDGED})

    def headers(self, identity: str, content: bytes) -> dict[str, str]:
        """HTTP headers of one message, with its signature."""
        headers = super().headers(identity, content)
        if self.secret is not None:
            key = self.secret.get_secret_value().encode()
            digest = hmac.new(key, content, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"sha256={digest}"
        return headers


class SlackReceiver(_HttpReceiver):
    """An incoming webhook of Slack."""

    kind: Literal["slack"]

    def shape(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message in blocks."""
        return alert_messages.slack(body)


class TeamsReceiver(_HttpReceiver):
    """A workflow of Teams that posts to a channel."""

    kind: Literal["teams"]

    def shape(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message as an Adaptive Card."""
        return alert_messages.teams(body)


class PagerDutyReceiver(_HttpReceiver):
    """A service of PagerDuty, or of another system that takes its events."""

    kind: Literal["pagerduty"]
    routing_key: SecretStr = Field(min_length=1)
    url: SecretStr = SecretStr(PAGERDUTY_URL)

    def shape(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message as an event."""
        return alert_messages.pagerduty(body, self.routing_key.get_secret_value())


class EmailReceiver(Receiver):
    """Addresses of mail, by an SMTP server."""

    kind: Literal["email"]
    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65_535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: SecretStr | None = None
    sender: str
    recipients: tuple[str, ...] = Field(min_length=1)

    skips: ClassVar[frozenset[Kind]] = frozenset({Kind.ACKNOWLEDGED})

    @field_validator("sender", "recipients")
    @classmethod
    def _are_addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (value,) if isinstance(value, str) else value:
            local, _, domain = parseaddr(address)[1].rpartition("@")
            if not local or not domain or not address.isprintable() or "," in address:
                raise ValueError(f"{address!r} is no address of mail; valid: name@host")
        return value

    @model_validator(mode="after")
    def _hides_the_password(self) -> "EmailReceiver":
        if (self.user is None) != (self.password is None):
            raise ValueError("valid: user and password, or neither")
        if self.password is not None and self.tls == "none":
            raise ValueError("tls is none with a password; valid: starttls or tls")
        return self

    @property
    def place(self) -> str:
        """The SMTP server."""
        return f"{self.host}:{self.port}"

    def send(self, client: httpx.Client, identity: str, content: bytes) -> Outcome:
        """Send one message as a mail."""
        del client, identity
        message = alert_messages.mail(json.loads(content), self.sender, self.recipients)
        try:
            with closing(self._session()) as session:
                refused = session.send_message(
                    message, self.sender, [parseaddr(one)[1] for one in self.recipients]
                )
                with suppress(OSError, smtplib.SMTPException):  # the mail is already accepted
                    session.quit()
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            return _mail_problem(_recipients(error.recipients), max(codes, default=550))
        except smtplib.SMTPResponseException as error:
            text = error.smtp_error
            answer = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            return _mail_problem(f"answered {error.smtp_code} {answer}", error.smtp_code)
        except (smtplib.SMTPNotSupportedError, UnicodeError) as error:  # a host that is no name
            return Outcome("refused", f"{error}"[:PROBLEM_LENGTH])
        except (OSError, smtplib.SMTPException) as error:
            problem = f"{type(error).__name__}: {error}"[:PROBLEM_LENGTH]
            return Outcome("waiting", problem, is_unreachable=True)
        return Outcome("delivered", _recipients(refused) if refused else None)

    def _session(self) -> smtplib.SMTP:
        if self.tls == "tls":
            session: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host,
                self.port,
                timeout=POST_TIMEOUT_SECONDS,
                context=ssl.create_default_context(),
            )
        else:
            session = smtplib.SMTP(self.host, self.port, timeout=POST_TIMEOUT_SECONDS)
        try:
            if self.tls == "starttls":
                session.starttls(context=ssl.create_default_context())
            if self.user is not None and self.password is not None:
                session.login(self.user, self.password.get_secret_value())
        except BaseException:
            session.close()
            raise
        return session


AnyReceiver = Annotated[
    WebhookReceiver | SlackReceiver | TeamsReceiver | PagerDutyReceiver | EmailReceiver,
    Field(discriminator="kind"),
]


class Routes(BaseModel):
    """The file of routes: the receivers, each with its route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    receivers: tuple[AnyReceiver, ...] = Field(min_length=1)


def receivers_of(settings: Settings) -> tuple[Receiver, ...]:
    """The receivers of alerts of the settings.

    Raises:
        RoutesError: if the file of routes cannot be read, or is not valid.
    """
    receivers: list[Receiver] = []
    if settings.alert_webhook is not None:
        receivers.append(
            WebhookReceiver(
                name=WEBHOOK, url=settings.alert_webhook, secret=settings.alert_webhook_secret
            )
        )
    if settings.alert_routes is not None:
        receivers += read_routes(settings.alert_routes, os.environ)
    names = [one.name for one in receivers]
    for name in names:
        if names.count(name) > 1:
            raise RoutesError(
                f"{settings.alert_routes}: the name {name!r} is there twice; valid: a name of its "
                f"own for each receiver, and {WEBHOOK!r} for CREDITRISK_ALERT_WEBHOOK alone"
            )
    return tuple(receivers)


def read_routes(file: Path, environment: Mapping[str, str]) -> tuple[Receiver, ...]:
    """The receivers of a file of routes.

    Args:
        file: TOML.
        environment: the variables that it may refer to.

    Raises:
        RoutesError: if it cannot be read, or is not valid.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RoutesError(f"routes {file} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RoutesError(f"routes {file} is not TOML: {error}") from error
    try:
        _require_references(document)
        resolved = _resolved(document, (), environment)
        return Routes.model_validate(resolved).receivers
    except ValidationError as error:
        problems = "; ".join(_problem(document, one) for one in error.errors(include_url=False))
        raise RoutesError(f"routes {file}: {problems}") from None  # the input may be a secret
    except RoutesError as error:
        raise RoutesError(f"routes {file}: {error}") from error


def _require_references(document: Mapping[str, Any]) -> None:
    """Refuse a secret in the file itself."""
    receivers = document.get("receivers")
    for number, receiver in enumerate(receivers if isinstance(receivers, list) else []):
        if not isinstance(receiver, dict):
            continue
        for name in SECRET_FIELDS.get(str(receiver.get("kind")), ()):
            value = receiver.get(name)
            if isinstance(value, str) and not REFERENCE.search(value):
                raise RoutesError(
                    f"receivers.{number}.{name} is a secret in the file; valid: ${{NAME}}, a "
                    "variable of the environment, or ${file:/path}"
                )


def _resolved(value: Any, place: tuple[str | int, ...], environment: Mapping[str, str]) -> Any:
    """A value of the file, with the values of its references."""
    if isinstance(value, dict):
        return {name: _resolved(one, (*place, name), environment) for name, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one, (*place, number), environment) for number, one in enumerate(value)]
    if not isinstance(value, str):
        return value

    def resolve(reference: re.Match[str]) -> str:
        is_file, name = reference.groups()
        where = ".".join(map(str, place))
        if is_file:
            try:
                return Path(name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise RoutesError(f"{where} refers to a file: {error}") from error
        if not environment.get(name):
            raise RoutesError(
                f"{where} refers to {name}, which the environment does not have; valid: a "
                "variable with a value"
            )
        return environment[name]

    return REFERENCE.sub(resolve, value)


def _problem(document: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """A problem with the value as it stands in the file, so without a secret."""
    place = [part for part in error["loc"] if part not in SECRET_FIELDS]
    value: Any = document
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    where = ".".join(map(str, place)) or "the file"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = "" if value is None or isinstance(value, dict | list) else f" is {value!r:.80}"
    return f"{where}{shown}: {message}"


def _post(
    client: httpx.Client, url: str, content: bytes, headers: Mapping[str, str], receiver: Receiver
) -> Outcome:
    try:
        with client.stream(
            "POST", url, content=content, headers=headers, timeout=POST_TIMEOUT_SECONDS
        ) as response:
            status = response.status_code
            retry_after = response.headers.get("Retry-After", "")
            answer = _limited(response.iter_bytes())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"{type(error).__name__}: {error}"[:PROBLEM_LENGTH]
        return Outcome("waiting", problem, is_unreachable=True)
    if httpx.codes.is_success(status):
        return Outcome("delivered", answer=answer)
    problem = f"answered {status}{_shown(answer, _secrets(receiver))}"
    if status in RETRY_STATUSES or httpx.codes.is_server_error(status):
        seconds = float(retry_after) if retry_after.isdecimal() else None
        return Outcome("waiting", problem, retry_after=seconds)
    hint = "; name the final address" if httpx.codes.is_redirect(status) else ""
    return Outcome("refused", f"{problem}{hint}")


def _limited(pieces: Iterable[bytes]) -> bytes:
    """The whole answer; empty if it is too long, or comes too slowly."""
    content, ends = b"", time.monotonic() + POST_TIMEOUT_SECONDS
    for piece in pieces:
        content += piece
        if len(content) > ANSWER_BYTES or time.monotonic() > ends:
            return b""
    return content


def _secrets(receiver: Receiver) -> list[str]:
    return [value.get_secret_value() for _, value in receiver if isinstance(value, SecretStr)]


def _shown(answer: bytes, secrets: Sequence[str]) -> str:
    """The beginning of an answer for people, on one line and without secrets."""
    text = " ".join(answer.decode(errors="replace").split())
    for secret in secrets:
        text = text.replace(secret, "…")
    text = "".join(one for one in text if one.isprintable())
    return f" {text[:PROBLEM_LENGTH]}" if text else ""


def _mail_problem(problem: str, code: int) -> Outcome:
    return Outcome("waiting" if code in SMTP_TEMPORARY else "refused", problem[:PROBLEM_LENGTH])


def _recipients(refused: Mapping[str, tuple[int, bytes]]) -> str:
    """The addresses that a server did not take."""
    addresses = ", ".join(
        f"{address} ({code} {text.decode(errors='replace')})"
        for address, (code, text) in refused.items()
    )
    return f"not taken for {addresses}"[:PROBLEM_LENGTH]
