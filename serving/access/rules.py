"""Which requests need which scope, and what they may carry.

What is not in the table needs `admin`: a route that somebody adds and forgets here is closed, not
    open.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from creditrisk_assets.settings import ServingSettings

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

Headers = tuple[tuple[bytes, bytes], ...]

ALWAYS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
"""An answer is about a customer: no browser or proxy keeps it."""

FETCH_NOTHING = b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
OWN_PAGE = FETCH_NOTHING + (
    b"; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'"  # noqa: E501
)
DOCUMENTATION = FETCH_NOTHING + (
    b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:"  # noqa: E501
    b"; connect-src 'self'; worker-src blob:"
)
"""Swagger UI and ReDoc are started by a script in their page, and style themselves."""
CARD = FETCH_NOTHING + b"; style-src 'unsafe-inline'; img-src data:"
"""The model card has its style and its pictures in itself, and nothing else."""

REPORT = FETCH_NOTHING + (
    b"; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"  # noqa: E501
    b"; worker-src blob:; sandbox allow-scripts allow-downloads"
)
"""An Evidently report holds its own scripts and data. In a sandbox it has no origin: it cannot ask
the API anything.
"""


def _headers(policy: bytes, more: Headers = NO_STORE) -> Headers:
    return (*ALWAYS, *more, (b"content-security-policy", policy))


JSON_HEADERS = _headers(FETCH_NOTHING)


@dataclass(frozen=True)
class Body:
    """What a request may carry.

    Args:
        limit: bytes.
        types: media types; none: any.
        other_names: what else these are called; taken, and not told of.
        seconds: until the body is whole or, where it is streamed, between two pieces of it.
        streamed: whether the route reads it piece by piece; otherwise it is whole before the route
            is called.
    """

    limit: int
    types: tuple[str, ...]
    seconds: float
    streamed: bool = False
    other_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rule:
    """What holds for a route.

    Args:
        template: its path as metrics name it, with a name where a value stands.
        scopes: any one of them is enough; none: everybody may.
        body: what the request may carry.
        headers: of every answer.
        page: whether people open it in a browser, which may then ask them for a key.
        allow: where the route exists, but not with this method: those that it has.
    """

    template: str
    scopes: frozenset[str]
    body: Body
    headers: Headers = JSON_HEADERS
    page: bool = False
    allow: tuple[str, ...] = ()

    @cached_property
    def head(self) -> bytes:
        """The headers as HTTP/1.1 has them."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers)


PUBLIC: frozenset[str] = frozenset()
PREDICT = frozenset({"predict"})
READ = frozenset({"read"})
ADMIN = frozenset({"admin"})


class RouteTable:
    """Finds the rule of a request.

    Args:
        exact: rules by method and path.
        prefixes: rules by method and the beginning of the path, which ends with a slash; the first
            that fits counts.
        other: the rule of everything else.
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
        self._otherwise = {
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
        for asked, prefix, rule in self._prefixes:
            if method == asked and path.startswith(prefix):
                return rule
        return self._otherwise.get(path, self._other)


def route_table(
    settings: ServingSettings,
    batch_types: Sequence[str] = (JSON_TYPE,),
    other_names: Iterable[str] = (),
) -> RouteTable:
    """The routes of this API.

    Args:
        settings: limits.
        batch_types: what /predict/batch takes.
        other_names: what else these are called.
    """
    seconds = settings.body_seconds
    small = Body(settings.predict_body_limit, (), seconds)
    one = Body(
        settings.predict_body_limit, (JSON_TYPE,), seconds, other_names=frozenset({"text/json"})
    )
    form = Body(settings.predict_body_limit, (JSON_TYPE, FORM_TYPE), seconds)
    many = Body(
        settings.batch_body_limit,
        tuple(batch_types),
        seconds,
        streamed=True,
        other_names=frozenset(other_names),
    )
    page, documentation, report = _headers(OWN_PAGE), _headers(DOCUMENTATION), _headers(REPORT)
    static = _headers(
        FETCH_NOTHING, ((b"cache-control", b"no-cache"),)
    )  # asked for again by its ETag

    exact = {
        ("GET", "/health"): Rule("/health", PUBLIC, small),
        ("GET", "/ready"): Rule("/ready", PUBLIC, small),
        ("GET", "/openapi.json"): Rule("/openapi.json", PUBLIC, small),
        ("GET", "/docs"): Rule("/docs", PUBLIC, small, documentation),
        ("GET", "/redoc"): Rule("/redoc", PUBLIC, small, documentation),
        ("GET", "/favicon.ico"): Rule("/favicon.ico", PUBLIC, small),
        ("POST", "/predict"): Rule("/predict", PREDICT, one),
        ("POST", "/predict/batch"): Rule("/predict/batch", PREDICT, many),
        ("POST", "/what-if"): Rule("/what-if", PREDICT, one, page, page=True),
        ("POST", "/"): Rule("/", PREDICT, form, page, page=True),
        ("GET", "/"): Rule("/", READ, small, page, page=True),
        ("GET", "/monitoring"): Rule("/monitoring", READ, small, page, page=True),
        ("GET", "/model/card"): Rule("/model/{page}", READ, small, _headers(CARD), page=True),
        ("GET", "/model-info"): Rule("/model-info", READ, small),
        ("GET", "/metrics"): Rule("/metrics", READ, small),
    }
    prefixes = (
        (
            "GET",
            "/decisions/",
            Rule("/decisions/{id}", READ | PREDICT, small),
        ),  # the route tells a caller only its own
        (
            "GET",
            "/reports/verdicts/",
            Rule("/reports/{report}", READ, small, _headers(CARD), page=True),
        ),
        ("GET", "/reports/", Rule("/reports/{report}", READ, small, report, page=True)),
        ("GET", "/model/", Rule("/model/{page}", READ, small, page, page=True)),
        ("GET", "/static/", Rule("/static", PUBLIC, small, static)),
        ("GET", "/static-offline-docs/", Rule("/static", PUBLIC, small, static)),
        ("GET", "/docs/", Rule("/docs", PUBLIC, small, documentation)),
    )
    return RouteTable(exact, prefixes, Rule("other", ADMIN, small))
