"""Configures the log of the API process: one JSON line on stdout for each event, also for events of
Python's `logging`.
"""

import logging
import re
import sys
from typing import Any, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

KEY_IN_TEXT = re.compile(r"cr_[0-9a-f]{12}_[0-9a-f]+", re.IGNORECASE)
"""Also matches shortened and misspelt keys."""

LogFormat = Literal["json", "console"]


def configure_logs(log_format: LogFormat | None = None) -> None:
    """Configure one format for all logs of this process.

    Args:
        log_format: JSON lines or text for people; None for text on a terminal and JSON lines
            elsewhere.
    """
    as_json = (log_format or ("console" if sys.stdout.isatty() else "json")) == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the local variables of a traceback's frames, which may hold a customer.
    as_dict = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    last: list[Processor] = (
        [as_dict, redact, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.processors.format_exc_info, redact, structlog.dev.ConsoleRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
        logger.propagate = name != "uvicorn.access"  # the gateway logs requests
    logging.captureWarnings(True)


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace everything that looks like an API key, anywhere in a line."""
    return {_redacted(name): _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return KEY_IN_TEXT.sub("cr_(redacted)", value) if "cr_" in value.lower() else value
    if isinstance(value, bytes):
        return _redacted(value.decode("latin-1"))
    if isinstance(value, dict):
        return {_redacted(name): _redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _redacted(str(value))  # the text that the line shows
