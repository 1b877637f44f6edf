"""The log of the API process: one JSON line for each event, on stdout, also of what logs by
Python's own means.
"""

import logging
import re
import sys
from typing import Any, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

KEY_IN_TEXT = re.compile(r"cr_[0-9a-f]{12}_[0-9a-f]+", re.IGNORECASE)
"""Also of a key that was cut or misspelt."""

LogFormat = Literal["json", "console"]


def configure_logs(wanted: LogFormat | None = None) -> None:
    """Let everything in this process log in one way.

    Args:
        wanted: JSON lines or text for people; None: text on a terminal, JSON lines elsewhere.
    """
    as_json = (wanted or ("console" if sys.stdout.isatty() else "json")) == "json"
    every: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the variables of a traceback's frames: a customer may be among them.
    plain: list[Processor] = [
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        redact,
    ]
    shown: list[Processor] = [structlog.processors.format_exc_info, redact]
    last: list[Processor] = [*plain, structlog.processors.JSONRenderer()]
    if not as_json:
        last = [*shown, structlog.dev.ConsoleRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*every, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    structlog.configure(
        processors=[*every, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("creditrisk_assets", "serving", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"  # the perimeter tells of requests
    logging.captureWarnings(True)


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Put what looks like an API key out of a line, wherever in it it stands."""
    return {_redacted(name): _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return KEY_IN_TEXT.sub("cr_(redacted)", value) if "cr_" in value.lower() else value
    if isinstance(value, bytes):
        return _redacted(value.decode("latin-1"))
    if isinstance(value, dict):
        return {_redacted(name): _redacted(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _redacted(str(value))  # as the line would show it
