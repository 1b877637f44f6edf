"""Connections that do not behave, over raw sockets: each is answered or closed, and the others do not notice."""

import asyncio
import contextlib
import resource
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from tests.support.servers import IMPATIENT, ImpatientProtocol, served

LARGE = 20_000_000


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how long the body was. `/large` has a large answer; `/early` answers before it has read
    anything; the body of `/late` follows its head after a second, and that of `/broken` never.
    """
    request = Request(scope, receive)
    response: Response
    if scope["path"] in ("/late", "/broken"):
        length = [(b"content-length", b"4")] if scope["path"] == "/broken" else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if length:
            raise OSError("the rest cannot be read")
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"late"})
        return
    if scope["path"] == "/large":
        response = PlainTextResponse("x" * LARGE)
    elif scope["path"] == "/early":
        response = PlainTextResponse("no", 413)
    else:
        response = JSONResponse({"path": scope["path"], "bytes": len(await request.body())})
    await response(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(application, ImpatientProtocol, timeout_keep_alive=1) as port:
        yield port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed; a reset or five seconds of silence fail the test."""
    answer = b""
    while piece := connection.recv(1_000_000):
        answer += piece
    return answer


GET = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    start = time.monotonic()
    with connected(port) as connection:
        assert everything(connection) == b""
    assert IMPATIENT.head_seconds * 0.9 < time.monotonic() - start < IMPATIENT.head_seconds + 2


@pytest.mark.parametrize("drip", [b"X-A: b\r\n", b"x", b"\r\n"])
def test_a_head_that_drips_is_answered_with_408_or_closed(port: int, drip: bytes) -> None:
    """Slowloris; blank lines before a request count for nothing."""
    with connected(port) as connection:
        start = time.monotonic()
        if drip != b"\r\n":
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() < start + 3:
                connection.sendall(drip)
                connection.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(10_000)
                    break
        assert time.monotonic() - start < 2
        assert answer == b"" if drip == b"\r\n" else answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("drip", [b"\r\n", b"G"])
def test_after_an_answer_the_next_head_is_waited_for_no_longer(port: int, drip: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(GET % b"one")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        start = time.monotonic()
        connection.sendall(drip)
        everything(connection)
        assert time.monotonic() - start < IMPATIENT.head_seconds + 1


def test_the_head_of_a_stream_does_not_wait_for_its_body(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(LAST % b"late")
        head = connection.recv(10_000)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"late" not in head
        assert b"late" in everything(connection)


def test_an_answer_without_its_body_is_cut_off_after_its_head(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET % b"broken")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


def test_an_answer_to_head_has_no_body(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"HEAD /one HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert everything(connection).endswith(b"\r\n\r\n")


def test_an_idle_connection_is_closed_after_its_answer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET % b"one")
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 500, 400),  # a TLS hello
        (b"\x00" * 1_000, 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 2_000_000, 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_answered_once_and_closed(
    port: int, sent: bytes, status: int
) -> None:
    with connected(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer


def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"".join(GET % b"%d" % place for place in range(20)) + LAST % b"20")
        answer = everything(connection)
    paths = [int(part[: part.index(b'"')]) for part in answer.split(b'"path":"/')[1:]]
    assert paths == list(range(21))


def test_garbage_behind_a_good_request_does_not_spoil_its_answer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET % b"good" + b"\x00garbage\r\n\r\n")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"/good"' in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_client_that_has_said_all_and_closed_its_side_is_still_answered(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET % b"half")
        connection.shutdown(socket.SHUT_WR)
        assert b'"/half"' in everything(connection)


def test_a_client_that_closes_in_the_middle_of_its_body_leaves_nothing_behind(port: int) -> None:
    for ending in (socket.SHUT_WR, None):
        with connected(port) as connection:
            connection.sendall(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
            if ending is not None:
                connection.shutdown(ending)
                assert everything(connection) == b""
            else:
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )  # a reset
    assert httpx.get(f"http://127.0.0.1:{port}/after").status_code == 200


def test_who_is_refused_while_sending_can_read_why(port: int) -> None:
    """Closing at once would reset the connection and lose the answer on its way."""
    for _ in range(10):
        with connected(port) as connection:
            connection.sendall(
                b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
            )
            for _ in range(30):
                connection.sendall(b"x" * 100_000)
            assert everything(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_goes_on_after_its_answer_does_not_hold_the_connection(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < start + 6:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 4


def test_an_upgrade_that_is_not_there_is_an_ordinary_request(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(10_000).startswith(b"HTTP/1.1 ")


def test_a_client_that_does_not_take_its_answer_is_cut_off(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(GET % b"large")
        time.sleep(IMPATIENT.write_seconds * 2 + 0.5)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1_000_000):
                taken += len(piece)
        assert taken < LARGE


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(LAST % b"large")
        taken, start = 0, time.monotonic()
        while piece := connection.recv(100_000):
            taken += len(piece)
            if time.monotonic() - start < IMPATIENT.write_seconds * 2.5:
                time.sleep(0.01)
    assert taken > LARGE


def median_latency(client: httpx.Client, requests: int = 300) -> float:
    taken = []
    for _ in range(requests):
        start = time.perf_counter()
        assert client.post("/a", content=b"x" * 400).status_code == 200
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def test_two_thousand_idle_connections_do_not_slow_a_good_client() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 10_000), hard))

    class Impatience(ImpatientProtocol):
        limits = type(IMPATIENT)(head_seconds=20.0, write_seconds=1.0)

    idle: list[socket.socket] = []
    try:
        with (
            served(application, Impatience, backlog=4_096) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            median_latency(client, 100)
            alone = median_latency(client)
            idle += [connected(port) for _ in range(2_000)]
            for place, connection in enumerate(idle):
                if place % 2:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            among = min(
                median_latency(client) for _ in range(3)
            )  # the machine may be busy for a moment
            assert among < alone * 2, (
                f"{alone * 1e6:.0f} us alone, {among * 1e6:.0f} us among idle connections"
            )
            print(f"{alone * 1e6:.0f} us alone, {among * 1e6:.0f} us among 2,000 idle connections")  # noqa: T201
            for connection in idle:
                connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_bad_connections_at_once_leave_the_server_whole(port: int) -> None:
    def misbehave(place: int) -> None:
        kinds = (
            b"\x16\x03\x01",
            b"GET / HT",
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
            b"\r\n" * 50,
        )
        for _ in range(20):
            with connected(port) as connection, contextlib.suppress(OSError):
                connection.sendall(kinds[place % len(kinds)])

    threads = [threading.Thread(target=misbehave, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert [client.get("/a").status_code for _ in range(50)] == [200] * 50
    for thread in threads:
        thread.join()
