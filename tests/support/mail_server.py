"""An SMTP server as a process of its own: `python -m tests.support.mail_server OPTIONS`, with the options as JSON.

Each mail is appended to the log as a line of JSON. The script is what it answers to the content of one mail after the
other: an SMTP reply such as `451 later`, or `hang`; when it is through, it takes them.
"""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.places import REPOSITORY
from tests.support.waiting import until


@contextlib.contextmanager
def mail_server(
    folder: Path, script: Sequence[str] = (), **options: object
) -> Iterator[tuple[int, Path]]:
    """A server; its port and the file of its mails.

    Options are `unknown`, addresses that it does not take; `certificate` and `key`, files for STARTTLS, which it then
    requires; `password`, of the user `alerts`.
    """
    # The server itself needs none of it, and the import takes seconds.
    from creditrisk_assets.simulation.processes import reserved_ports

    (port,) = reserved_ports(1)
    log = folder / "mails.jsonl"
    every = {"port": port, "log": str(log), "script": list(script), **options}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mail_server", json.dumps(every)],
        cwd=REPOSITORY,
        start_new_session=True,
    )
    try:

        def listens() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, 60)
        yield port, log
    finally:
        process.kill()
        process.wait()


def mails(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main() -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    options: dict[str, Any] = json.loads(sys.argv[1])
    script: list[str] = options["script"]

    class Handler:
        async def handle_RCPT(  # noqa: N802 - the library's name
            self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
        ) -> str:
            if address in options.get("unknown", ()):
                return "550 no such user"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            answer = script.pop(0) if script else "250 OK"
            line = {
                "sender": envelope.mail_from,
                "recipients": envelope.rcpt_tos,
                "content": envelope.content.decode(),
                "tls": session.ssl is not None,
                "user": getattr(session.auth_data, "login", b"").decode(),
                "answer": answer,
            }
            with Path(options["log"]).open("a") as file:
                file.write(json.dumps(line) + "\n")
            if answer == "hang":
                await asyncio.sleep(60)
            return answer

    more: dict[str, Any] = {}
    if "certificate" in options:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options["certificate"], options["key"])
        more |= {"tls_context": context, "require_starttls": True}
    if "password" in options:

        def authenticate(
            _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
        ) -> AuthResult:
            right = data.password.decode() == options["password"]
            return AuthResult(success=right, auth_data=data if right else None, handled=False)

        more |= {"authenticator": authenticate, "auth_required": True}
    controller = Controller(Handler(), hostname="127.0.0.1", port=options["port"], **more)
    controller.start()
    signal.pause()


if __name__ == "__main__":
    main()
