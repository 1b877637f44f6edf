"""The rule of each route, the scope that it requires and the body that it accepts, and its
enforcement.

A route that is not in the table requires `admin`: a forgotten route is closed, not open.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from starlette.exceptions import HTTPException

from creditrisk_assets.settings import ServingSettings
from serving.access.keys import ANONYMOUS, Caller, KeyRing
from serving.access.rate_limit import RateLimiter

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

OWN_HOST = re.compile(rb"(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?")
ONE_VALUE = (
    b"authorization",
    b"x-api-key",
    b"content-type",
    b"content-encoding",
    b"x-request-id",
    b"host",
)
"""Headers that may be sent only once; twice they would be ambiguous."""

HOW_TO_SEND_A_KEY = (
    "; valid: `Authorization: Bearer <key>`, or `X-API-Key: <key>`; `creditrisk keys create` "
    "makes one"
)
FOREIGN_HOST = (
    "without API keys the API answers only to this machine, as localhost or 127.0.0.1; "
    "`creditrisk keys create NAME --scope predict` makes a key"
)
NOBODY = Caller("nobody", frozenset())
"""The caller of a public route, where no key is read."""

ALWAYS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
"""Answers are about customers: no browser or proxy may store them."""

FETCH_NOTHING = b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
OWN_PAGE = FETCH_NOTHING + (
    b"; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'"  # noqa: E501
)
DOCUMENTATION = FETCH_NOTHING + (
    b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:"  # noqa: E501
    b"; connect-src 'self'; worker-src blob:"
)
"""Swagger UI and ReDoc have inline scripts and styles."""
CARD = FETCH_NOTHING + b"; style-src 'unsafe-inline'; img-src data:"
"""The model card holds its style and its pictures, and nothing else."""

REPORT = FETCH_NOTHING + (
    b"; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"  # noqa: E501
    b"; worker-src blob:; sandbox allow-scripts allow-downloads"
)
"""An Evidently report holds its own scripts and data. In a sandbox it has no origin, so it cannot
call the API.
"""


def _headers(policy: bytes, more: Headers = NO_STORE) -> Headers:
    return (*ALWAYS, *more, (b"content-security-policy", policy))


JSON_HEADERS = _headers(FETCH_NOTHING)
PAGE_HEADERS = _headers(OWN_PAGE)


@dataclass(frozen=True)
class Body:
    """The body that a request may carry.

    Args:
        limit: bytes.
        types: media types; empty for any.
        other_names: other names of these; accepted, and not documented.
        seconds: time limit of the whole body or, if streamed, of each piece.
        streamed: True if the route reads it piece by piece; otherwise it is complete before the
            route is called.
    """

    limit: int
    types: tuple[str, ...]
    seconds: float
    streamed: bool = False
    other_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rule:
    """The rule of a route.

    Args:
        template: its path for metrics, with names in place of values.
        scopes: any one of them is enough; empty for a public route.
        body: the body that it accepts.
        headers: of every answer.
        page: True for a page in a browser, which may then prompt for a key.
        allow: the route's methods, if the request's is not one of them.
    """

    template: str
    scopes: frozenset[str]
    body: Body
    headers: Headers = JSON_HEADERS
    page: bool = False
    allow: tuple[str, ...] = ()


PUBLIC: frozenset[str] = frozenset()
PREDICT = frozenset({"predict"})
READ = frozenset({"read"})
ACKNOWLEDGE = frozenset({"acknowledge"})
ADMIN = frozenset({"admin"})


class RouteTable:
    """Finds the rule of a request.

    Args:
        exact: rules by method and path.
        prefixes: rules by method and prefix of the path, which ends with a slash; the first match
            applies.
        other: the rule of all other requests.
    """

    def __init__(
        self,
        exact: dict[tuple[str, str], Rule],
        prefixes: Sequence[tuple[str, str, Rule]],
        other: Rule,
    ) -> None:
        self._exact = exact
        self._prefixes = tuple(prefixes)
        self._other = other
        public = {path for (_, path), rule in exact.items() if not rule.scopes}
        self._other_methods = {
            path: replace(
                other,
                scopes=PUBLIC if path in public else other.scopes,
                allow=tuple(sorted(method for method, known in exact if known == path)),
            )
            for _, path in exact
        }

    def rule(self, method: str, path: str) -> Rule:
        """The rule of a request; HEAD is a GET without its body."""
        if method == "HEAD":
            method = "GET"
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for rule_method, prefix, rule in self._prefixes:
            if method == rule_method and path.startswith(prefix):
                return rule
        return self._other_methods.get(path, self._other)


def route_table(
    settings: ServingSettings,
    batch_types: Sequence[str] = (JSON_TYPE,),
    other_names: Iterable[str] = (),
) -> RouteTable:
    """The routes of this API.

    Args:
        settings: limits.
        batch_types: media types that /predict/batch accepts.
        other_names: other names of these.
    """
    seconds = settings.limits.body_seconds
    small = Body(settings.limits.predict_body_limit, (), seconds)
    customer = Body(
        settings.limits.predict_body_limit,
        (JSON_TYPE,),
        seconds,
        other_names=frozenset({"text/json"}),
    )
    form = Body(settings.limits.predict_body_limit, (JSON_TYPE, FORM_TYPE), seconds)
    batch = Body(
        settings.limits.batch_body_limit,
        tuple(batch_types),
        seconds,
        streamed=True,
        other_names=frozenset(other_names),
    )
    page, documentation, report = _headers(OWN_PAGE), _headers(DOCUMENTATION), _headers(REPORT)
    # Browsers revalidate static files by their ETag.
    static = _headers(FETCH_NOTHING, ((b"cache-control", b"no-cache"),))

    exact = {
        ("GET", "/health"): Rule("/health", PUBLIC, small),
        ("GET", "/ready"): Rule("/ready", PUBLIC, small),
        ("GET", "/openapi.json"): Rule("/openapi.json", PUBLIC, small),
        ("GET", "/docs"): Rule("/docs", PUBLIC, small, documentation),
        ("GET", "/redoc"): Rule("/redoc", PUBLIC, small, documentation),
        ("GET", "/favicon.ico"): Rule("/favicon.ico", PUBLIC, small),
        ("POST", "/predict"): Rule("/predict", PREDICT, customer),
        ("POST", "/predict/batch"): Rule("/predict/batch", PREDICT, batch),
        ("POST", "/what-if"): Rule("/what-if", PREDICT, customer, page, page=True),
        ("POST", "/"): Rule("/", PREDICT, form, page, page=True),
        ("GET", "/"): Rule("/", READ, small, page, page=True),
        ("GET", "/monitoring"): Rule("/monitoring", READ, small, page, page=True),
        ("GET", "/monitoring.json"): Rule("/monitoring.json", READ, small),
        ("GET", "/model/card"): Rule("/model/{page}", READ, small, _headers(CARD), page=True),
        ("GET", "/alerts"): Rule("/alerts", READ | ACKNOWLEDGE, small),
        ("GET", "/model-info"): Rule("/model-info", READ, small),
        ("GET", "/metrics"): Rule("/metrics", READ, small),
    }
    prefixes = (
        ("POST", "/alerts/", Rule("/alerts/{episode}/{reaction}", ACKNOWLEDGE, form)),
        # Without READ the route shows a caller only its own decisions.
        ("GET", "/decisions/", Rule("/decisions/{id}", READ | PREDICT, small)),
        (
            "GET",
            "/reports/verdicts/",
            Rule("/reports/{report}", READ, small, _headers(CARD), page=True),
        ),
        ("GET", "/reports/", Rule("/reports/{report}", READ, small, report, page=True)),
        ("GET", "/monitoring/", Rule("/monitoring/{page}", READ, small, page, page=True)),
        ("GET", "/model/", Rule("/model/{page}", READ, small, page, page=True)),
        ("GET", "/static/", Rule("/static", PUBLIC, small, static)),
        ("GET", "/static-offline-docs/", Rule("/static", PUBLIC, small, static)),
        ("GET", "/docs/", Rule("/docs", PUBLIC, small, documentation)),
    )
    return RouteTable(exact, prefixes, Rule("other", ADMIN, small))


class Refused(HTTPException):
    """A request that the gateway does not let through; `reason` is a word for log and metrics,
    `caller` its caller where that is known.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        caller: Caller | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.reason = reason
        self.caller = caller


class Admission:
    """Admits or refuses the caller of a request, before its body is read.

    Args:
        ring: the keys.
        limiter: limits the rate of each caller, None for no limit. Anonymous callers are not
            limited: they are on this machine.
        any_host: True if callers without a key may use other names than this machine's own.
    """

    def __init__(self, ring: KeyRing, limiter: RateLimiter | None, *, any_host: bool) -> None:
        self._ring = ring
        self._limiter = limiter
        self._any_host = any_host

    def caller(
        self, method: str, rule: Rule, headers: Mapping[bytes, bytes], sent: Sequence[Header]
    ) -> Caller:
        """The caller of a request.

        Args:
            method: of HTTP.
            rule: of the route.
            headers: by name.
            sent: the same, with repetitions.

        Raises:
            Refused: if the request may not pass.
        """
        if len(headers) != len(sent):
            _refuse_contradictions(sent)
        if not rule.scopes:
            _require_method(method, rule)
            return NOBODY
        if method == "POST" and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise Refused(
                403, "cross_site", "another site's page may not ask this in its reader's name"
            )
        if self._ring.requires_keys:
            caller = self._caller_by_key(method, rule, headers)
        else:
            host = headers.get(b"host")
            if host is not None and not self._any_host and OWN_HOST.fullmatch(host) is None:
                raise Refused(403, "host", FOREIGN_HOST)
            caller = ANONYMOUS
        _require_method(method, rule)
        return caller

    def _caller_by_key(self, method: str, rule: Rule, headers: Mapping[bytes, bytes]) -> Caller:
        key = _key(headers)
        caller = None if key is None else self._ring.caller(key)
        if caller is None:
            challenge = 'Bearer realm="creditrisk"'
            if rule.page and method in ("GET", "HEAD"):
                challenge = f'Basic realm="creditrisk", charset="UTF-8", {challenge}'
            reason, detail = (
                ("no_key", "an API key is needed")
                if key is None
                else ("bad_key", "the API key is not valid, or expired")
            )
            raise Refused(401, reason, detail + HOW_TO_SEND_A_KEY, {"WWW-Authenticate": challenge})
        if caller.scopes.isdisjoint(rule.scopes):
            needed = " or ".join(sorted(rule.scopes))
            detail = f"{caller.name} may not do this: the scope {needed} is missing"
            raise Refused(403, "scope", detail, caller=caller)
        refusal = None if self._limiter is None else self._limiter.refusal(caller.name)
        if refusal is not None:
            detail = (
                f"{caller.name} sends more than {refusal.rate:g} requests a second; wait "
                f"{refusal.seconds:.3f} s"
            )
            raise Refused(429, "rate", detail, refusal.headers, caller)
        return caller


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key of a request, sent in one of three ways."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return headers.get(b"x-api-key")
    kind, _, text = authorization.partition(b" ")
    kind = kind.lower()
    if kind == b"bearer":
        return text.strip()
    if kind == b"basic":
        try:
            return base64.b64decode(text.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _refuse_contradictions(headers: Sequence[Header]) -> None:
    names = [name for name, _ in headers]
    for name in ONE_VALUE:
        if names.count(name) > 1:
            raise Refused(
                400, "contradiction", f"the header {name.decode()} is there twice; valid: once"
            )


def _require_method(method: str, rule: Rule) -> None:
    if rule.allow:
        valid = ", ".join(rule.allow)
        raise Refused(
            405, "method", f"{method} is not answered here; valid: {valid}", {"Allow": valid}
        )
