"""Answers a browser's failed request with a page in place of a JSON document."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Message, Send

from serving.http.problem_details import MEDIA_TYPE

ErrorPage = Callable[[Mapping[str, Any]], str]
"""The page of a problem, from the members of its document."""

PROBLEM_TYPE = MEDIA_TYPE.encode()


def with_error_pages(send: Send, page: ErrorPage, on_page: Callable[[], None]) -> Send:
    """A channel that turns problem documents into pages.

    Args:
        send: the channel behind it.
        page: makes the page.
        on_page: called before the headers of a page are sent.
    """
    held: Message | None = None
    body = b""

    async def answer(message: Message) -> None:
        nonlocal held, body
        if message["type"] == "http.response.start":
            if dict(message.get("headers", ())).get(b"content-type", b"").startswith(PROBLEM_TYPE):
                held = message
                return
        elif held is not None:
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            content = page(json.loads(body)).encode()
            length = str(len(content)).encode()
            own = [(name, value) for name, value in held["headers"] if name not in OF_BODY]
            own += [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", length)]
            on_page()
            await send({**held, "headers": own})
            held = None
            message = {"type": "http.response.body", "body": content}
        await send(message)

    return answer


OF_BODY = (b"content-type", b"content-length")
