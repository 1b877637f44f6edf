"""Hostile clients beside a good one.

A good client asks for decisions at an even pace: alone; beside clients that send what is no
request, or no valid one, that send slowly, that do not read, that go in the middle; beside
thousands of idle connections; alone again. Every hostile client must be answered, or closed, as it
should be; the good one must not be slowed; memory and descriptors must come back to where they
were.
"""

import asyncio
import contextlib
import itertools
import json
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.trials.client import Latencies, asking, latencies
from tests.support.trials.site import Site

RATE = 100.0
"""Requests a second of the good client."""

PAUSE_SECONDS = 0.02
"""Between two hostile requests: who they are is asked here, not how many a second can be
answered.
"""

GONE = 0
"""Instead of a status: closed without an answer."""

SLOWDOWN_LIMIT = 2.0
DESCRIPTORS_SPARE = 8
MEGABYTES_SPARE = 64
BEGIN_SECONDS = 30.0
UNREAD_ROWS = 12_000
"""Their answers are more than the system takes in for a client that does not read."""
ESTABLISHED = "01"
"""The state of a connection in /proc/net/tcp."""

NEAR = 3.0
"""Seconds that a limit of time may be overstepped by, on a busy machine."""


@dataclass(frozen=True)
class Probe:
    """Bytes that a client sends, and how it may be answered."""

    name: str
    sent: bytes
    statuses: frozenset[int]


@dataclass
class Found:
    """Answers to hostile clients, and those that were not as they should be."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, name: str, status: int, expected: frozenset[int]) -> None:
        """A client was answered, or closed."""
        self.answers[name, status] += 1
        if status not in expected:
            self.wrong.append(f"{name}: {status}; valid: {', '.join(map(str, sorted(expected)))}")


@dataclass(frozen=True)
class Usage:
    """Memory and descriptors of the API's processes."""

    descriptors: int
    megabytes: float


@dataclass(frozen=True)
class Outcome:
    """Result of the whole run.

    Attributes:
        alone: the good client alone, before and afterwards.
        beside_hostile: the good client beside hostile ones.
        beside_idle: and beside idle connections.
        idle: connections that were open at once.
        probes: hostile requests.
        wrong: what was answered otherwise than it should be.
        before: what the API held at first.
        after: and at the end.
        lives: whether `/health` and `/ready` say so at the end.
    """

    alone: tuple[Latencies, Latencies]
    beside_hostile: Latencies
    beside_idle: Latencies
    idle: int
    probes: int
    wrong: tuple[str, ...]
    before: Usage
    after: Usage
    lives: bool

    @property
    def is_correct(self) -> bool:
        """Whether everybody was answered as they should be, and everything was given back."""
        failed = sum(one.failed for one in (*self.alone, self.beside_hostile, self.beside_idle))
        given_back = (
            self.after.descriptors <= self.before.descriptors + DESCRIPTORS_SPARE
            and self.after.megabytes <= self.before.megabytes + MEGABYTES_SPARE
        )
        return self.lives and given_back and not self.wrong and not failed

    @property
    def slowdown(self) -> float:
        """p99 of the good client beside others, by p99 alone; the slower of both times it was alone
        counts.
        """
        return max(self.beside_hostile.p99, self.beside_idle.p99) / max(
            one.p99 for one in self.alone
        )

    @property
    def holds(self) -> bool:
        """Whether also nobody was slowed."""
        return self.is_correct and self.slowdown <= SLOWDOWN_LIMIT


def impatient(seconds: float) -> dict[str, str]:
    """The environment of an API that waits so long for heads, bodies and readers."""
    limits = {f"{what}_seconds": seconds for what in ("head", "body", "write")}
    return {"CREDITRISK_LIMITS": json.dumps(limits)}


def endure(
    site: Site,
    headers: dict[str, str],
    seconds: float,
    idle: int,
    patience: float,
    warm: bool = False,
) -> Outcome:
    """Let hostile clients at an API.

    Args:
        site: whose API is running, with `impatient(patience)`.
        headers: with a key that may predict.
        seconds: of each measurement.
        idle: connections to be open at once.
        patience: seconds after which the API closes who is slow.
        warm: let everybody at it once before anything is measured, so that what stays of it is what
            grows each time: the champion is compiled after ten thousand decisions, and an allocator
            keeps what ten thousand connections once took.
    """
    raise_descriptor_limit(idle + 500)
    body = json.dumps(dict(site.loop.settings.portfolio.example)).encode()
    good = {**headers, "Content-Type": "application/json"}
    found = Found()

    def measured(beside: Callable[[], Coroutine[None, None, None]]) -> Latencies:
        with asking(site.port, good, body, RATE) as client:
            asyncio.run(beside())
            return latencies(client)

    async def nobody() -> None:
        await asyncio.sleep(seconds)

    async def hostile_ones() -> None:
        await _hostile(site, headers, body, found, seconds, patience)

    held = 0

    async def idle_ones() -> None:
        nonlocal held
        held = await _idle(site, idle, seconds, patience, found)

    measured(nobody)  # what is done the first time is not measured
    if warm:
        measured(hostile_ones)
        measured(idle_ones)
    all_begun(site)
    before = usage(site)
    first = measured(nobody)
    beside_hostile = measured(hostile_ones)
    beside_idle = measured(idle_ones)
    last = measured(nobody)
    return Outcome(
        alone=(first, last),
        beside_hostile=beside_hostile,
        beside_idle=beside_idle,
        idle=held,
        probes=sum(found.answers.values()),
        wrong=tuple(sorted(set(found.wrong))),
        before=before,
        after=usage(site),
        lives=site.is_alive() and site.is_ready(),
    )


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process have so many descriptors.

    Raises:
        RuntimeError: if the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > hard:
        raise RuntimeError(f"{wanted} descriptors are needed, and the system gives {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def all_begun(site: Site) -> None:
    """Wait until every process of the API is at work: the one that keeps decisions begins some
    seconds after the others.

    Raises:
        RuntimeError: if that does not come to pass.
    """
    deadline = time.monotonic() + BEGIN_SECONDS
    held = usage(site)
    while True:
        time.sleep(1.0)
        begins = any(
            b"serving.ops.sidecars\0archiver" in Path(f"/proc/{number}/cmdline").read_bytes()
            for number in site.processes()
        )
        before, held = held, usage(site)
        if not begins and abs(held.megabytes - before.megabytes) < 1:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the API's processes have not begun within {BEGIN_SECONDS:g} s")


def usage(site: Site) -> Usage:
    """Memory and descriptors of the API's processes now."""
    descriptors, pages = 0, 0
    for number in site.processes():
        descriptors += len(list(Path(f"/proc/{number}/fd").iterdir()))
        pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return Usage(descriptors, round(pages * resource.getpagesize() / (1 << 20), 1))


def probes(headers: dict[str, str], body: bytes) -> list[Probe]:
    """Requests that are none, or not valid ones."""
    customer = json.loads(body)

    def posted(content: bytes, path: str = "/predict", **other: str) -> bytes:
        given = {
            "Host": "127.0.0.1",
            **headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
        }
        given |= {name.replace("_", "-"): value for name, value in other.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + content

    def changed(text: str) -> bytes:
        return (
            json.dumps({**customer, "limit_bal": 0})
            .replace('"limit_bal": 0', f'"limit_bal": {text}')
            .encode()
        )

    def probe(name: str, sent: bytes, *statuses: int) -> Probe:
        return Probe(name, sent, frozenset(statuses))

    deep = b"[" * 20_000 + b"]" * 20_000
    get = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        probe("a body of nothing but brackets", posted(deep), 400),
        probe(
            "an object nested a thousand times", posted(b'{"a":' * 1_000 + b"1" + b"}" * 1_000), 400
        ),
        probe("a batch of brackets", posted(b"[" + deep + b"]", "/predict/batch"), 200, 400, 422),
        probe("an oversized body", posted(b"", Content_Length="10000000"), 413),
        probe(
            "an oversized body in chunks",
            posted(b"ffffff\r\n" + bytes(70_000), Content_Length="", Transfer_Encoding="chunked"),
            413,
        ),
        probe(
            "an oversized batch", posted(b"", "/predict/batch", Content_Length=str(1 << 40)), 413
        ),
        probe("NaN", posted(changed("NaN")), 400),
        probe("Infinity", posted(changed("-Infinity")), 400),
        probe("1e308", posted(changed("1e308")), 422),
        probe("1e999", posted(changed("1e999")), 400, 422),
        probe("a number of ten thousand digits", posted(changed("9" * 10_000)), 400, 422),
        probe("a number in a string", posted(changed('"20000"')), 422),
        probe("a key twice", posted(body[:-1] + b', "sex": 1}'), 400),
        probe("a key twice, escaped", posted(body[:-1] + b', "s\\u0065x": 1}'), 400),
        probe("half a surrogate pair", posted(body[:-1] + b', "id": "\\ud800"}'), 400, 422),
        probe("a null byte in the identifier", posted(body[:-1] + b', "id": "a\\u0000b"}'), 422),
        probe("UTF-16", posted(body.decode().encode("utf-16")), 400),
        probe("Latin-1", posted(body[:-1] + ', "id": "M\xfcller"}'.encode("latin-1")), 400),
        probe("a byte order mark", posted(b"\xef\xbb\xbf" + body), 400),
        probe(
            "another charset", posted(body, Content_Type="application/json; charset=utf-16"), 415
        ),
        probe("XML", posted(body, Content_Type="text/xml"), 415),
        probe("no content type", posted(body, Content_Type=""), 415),
        probe("a compressed body", posted(body, Content_Encoding="gzip"), 415),
        probe(
            "a Parquet file that is none",
            posted(bytes(500), "/predict/batch", Content_Type="application/vnd.apache.parquet"),
            422,
        ),
        probe(
            "an Arrow stream that is none",
            posted(
                b"\xff" * 64, "/predict/batch", Content_Type="application/vnd.apache.arrow.stream"
            ),
            422,
        ),
        probe("a wrong key", posted(body, Authorization="Bearer cr_0"), 401),
        probe("two lengths", posted(body, Content_Length="5\r\nContent-Length: 7"), 400),
        probe(
            "length and chunks",
            posted(b"0\r\n\r\n", Content_Length="3", Transfer_Encoding="chunked"),
            400,
        ),
        probe("a length below nothing", posted(body, Content_Length="-1"), 400),
        probe(
            "a chunk of no size",
            posted(b"zz\r\n", Content_Length="", Transfer_Encoding="chunked"),
            400,
        ),
        probe("a TLS hello", bytes.fromhex("160301020001fc0303") + bytes(range(200)), 400),
        probe("a preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        probe("an SSH greeting", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        probe("noise", bytes(range(256)) * 4, 400),
        probe("a head of 64 KiB", get + b"X-Long: " + b"x" * 65_536 + b"\r\n\r\n", 431),
        probe(
            "a thousand headers",
            get + b"".join(b"X-%d: 1\r\n" % number for number in range(1_000)) + b"\r\n",
            431,
        ),
        probe(
            "a path of 40 KiB",
            b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            431,
        ),
        probe("a null byte in a header", get + b"X-Null: a\0b\r\n\r\n", 400),
        probe("a header folded", get + b"X-Folded: a\r\n b\r\n\r\n", 400, 200),
    ]


async def _hostile(
    site: Site, headers: dict[str, str], body: bytes, found: Found, seconds: float, patience: float
) -> None:
    """All hostile clients but the idle ones, for as long as the slowest of them takes, and no
    shorter than `seconds`.
    """
    end, port = time.monotonic() + seconds, site.port

    async def rude() -> None:
        for number, one in enumerate(itertools.cycle(known := probes(headers, body))):
            if number >= len(known) and time.monotonic() > end:
                return
            found.note(one.name, await _asked(port, one.sent, patience + NEAR), one.statuses)
            await asyncio.sleep(PAUSE_SECONDS)

    head = (
        "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(body)}\r\n"
    )
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = head.encode() + b"\r\n" + body
    pieces = [request[place : place + 1] for place in range(len(request))]
    slow = [
        _slow(port, "a slow head", pieces, found, patience, 408),
        _slow(
            port,
            "a slow body",
            [head.encode() + b"\r\n", *(body[place : place + 1] for place in range(len(body)))],
            found,
            patience,
            408,
        ),
        _slow(port, "half a head", [request[:50]], found, patience, 408),
        _slow(port, "half a body", [request[:-50]], found, patience, 408),
        _slow(port, "nothing", [], found, patience, GONE),
        _half_closed(port, request, found),
        _never_reads(site, headers, body, found, patience),
    ]
    await asyncio.gather(rude(), *slow, _leaves(port, request, end))


async def _asked(port: int, sent: bytes, seconds: float) -> int:
    """Send bytes; the status of the answer, or `GONE`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(sent)
            return await _status(reader)
    except TimeoutError:
        return -1
    finally:
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    try:
        line = await reader.readline()
    except ConnectionError:
        return GONE
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else GONE


async def _slow(
    port: int, name: str, pieces: list[bytes], found: Found, patience: float, *statuses: int
) -> None:
    """Send pieces one after the other, far apart, and then nothing; the API must end it in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(_status(reader))
    start = time.monotonic()
    pause = max(0.05, 3 * patience / max(len(pieces), 1))
    for piece in pieces:
        if answer.done() or writer.is_closing():
            break
        writer.write(piece)
        await asyncio.wait([answer], timeout=pause)
    done, _ = await asyncio.wait(
        [answer], timeout=max(0.0, start + 2 * patience + NEAR - time.monotonic())
    )
    found.note(name, answer.result() if done else -1, frozenset(statuses))
    if time.monotonic() - start > 2 * patience + NEAR:
        found.wrong.append(f"{name} was ended after {time.monotonic() - start:.1f} s only")
    answer.cancel()
    writer.close()


async def _half_closed(port: int, request: bytes, found: Found) -> None:
    """A client that has sent a whole request and will send no more still gets the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    found.note("a half closed connection", await _status(reader), frozenset({200}))
    writer.close()


async def _never_reads(
    site: Site, headers: dict[str, str], body: bytes, found: Found, patience: float
) -> None:
    """Ask for a batch and read nothing of the answer; the API must close it in time."""
    asked = socket.socket()
    asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    asked.setblocking(False)
    loop = asyncio.get_running_loop()
    port = site.port
    await loop.sock_connect(asked, ("127.0.0.1", port))
    rows = (body.replace(b"\n", b" ") + b"\n") * UNREAD_ROWS
    head = (
        "POST /predict/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
    )
    head += "".join(
        f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": len(rows)}.items()
    )
    await loop.sock_sendall(asked, head.encode() + b"\r\n" + rows)
    start = time.monotonic()
    link = _other_end(port, asked.getsockname()[1])
    while (held := link in _links(site)) and time.monotonic() < start + 3 * patience + 3 * NEAR:
        await asyncio.sleep(0.2)
    found.note("an answer that nobody reads", -1 if held else GONE, frozenset({GONE}))
    asked.close()


def _other_end(port: int, client: int) -> str:
    """Name of the API's end of a connection among its descriptors. Whether that is open the
    client cannot see: what it does not read stands before the end. To look through all the system's
    connections each time would cost more than all these clients do.
    """
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        if (int(local[-4:], 16), int(remote[-4:], 16), state) == (port, client, ESTABLISHED):
            return f"socket:[{inode}]"
    raise RuntimeError(f"the API has no connection from port {client}")


def _links(site: Site) -> set[str]:
    """Targets of the descriptors of the API's processes."""
    links = set()
    for number in site.processes():
        for descriptor in Path(f"/proc/{number}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.add(str(descriptor.readlink()))
    return links


async def _leaves(port: int, request: bytes, end: float) -> None:
    """Go in the middle of a head, of a body, and before the answer, with a reset where that is
    possible.
    """
    for place in itertools.cycle([10, len(request) // 2, len(request) - 10, len(request)]):
        if time.monotonic() > end:
            return
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:place])
        await writer.drain()
        writer.transport.abort()
        await asyncio.sleep(PAUSE_SECONDS)


async def _idle(site: Site, wanted: int, seconds: float, patience: float, found: Found) -> int:
    """Open connections and send nothing; how many the API held at once. It must close all of
    them.
    """
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    start = time.monotonic()
    while len(connections) < wanted:
        some = min(200, wanted - len(connections))
        connections += await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", site.port) for _ in range(some))
        )
        await asyncio.sleep(0)
    held = 0
    while (
        held < wanted and time.monotonic() < start + patience
    ):  # it takes them in one after the other
        held = usage(site).descriptors
        await asyncio.sleep(0.1)
    await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
    ends = [asyncio.create_task(reader.read()) for reader, _ in connections]
    done, pending = await asyncio.wait(ends, timeout=2 * patience + NEAR)
    for task in pending:
        task.cancel()
    if pending:
        found.wrong.append(f"{len(pending)} of {wanted} idle connections were not closed")
    found.answers["an idle connection", GONE] += len(done)
    for _, writer in connections:
        writer.close()
    return min(held, wanted)
