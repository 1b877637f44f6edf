"""Many customers in one request: read as they come, decided some at a time, answered in kind.

The body is put on the disk first: a client that reads only after it has sent everything would
otherwise wait for a server that reads on only when its answers are taken. Memory holds some hundred
rows.
"""

import asyncio
import io
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from fastapi import HTTPException
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from creditrisk_assets.decisions.writer import LogUnwritable
from creditrisk_assets.portfolio.contract import Portfolio
from serving.http.batch_formats import (
    PIECE_BYTES,
    NoRecord,
    Record,
    Result,
    TableRow,
    Unreadable,
    Writer,
)
from serving.http.media_types import UnknownFormat, format_of
from serving.http.problem_details import ContractProblems
from serving.http.schemas import RecordReader
from serving.inference.batch_yield import BATCH_YIELD
from serving.inference.decider import (
    Decider,
    DecisionRequest,
    KeyUsed,
    NoChampion,
    Overloaded,
)

ROWS_TOGETHER = 256
"""Rows of one run of the graph: some ten milliseconds in a thread of their own."""

PATIENCE_SECONDS = 30.0
"""How long a batch that has begun waits for its turn while others keep the decider busy."""

PATIENCE_STEP_SECONDS = 0.1


class BatchHandler:
    """Answers `/predict/batch`.

    Args:
        decider: makes the decisions.
        portfolio: whose contract the rows must satisfy.
        read: reads a record.
        rows_limit: how many a batch may have.
        folder: where bodies are put.
    """

    def __init__(
        self,
        decider: Decider,
        portfolio: Portfolio,
        read: RecordReader,
        rows_limit: int,
        folder: Path,
    ) -> None:
        self._decider = decider
        self._portfolio = portfolio
        self._read = read
        self._rows_limit = rows_limit
        self._folder = folder
        self._problems = ContractProblems(portfolio)

    async def answer(self, request: Request, key: str | None) -> Response:
        """Decide on a batch.

        Args:
            request: its content type is one that the gateway has let through.
            key: its idempotency key.

        Raises:
            HTTPException: if nothing in it can be read or decided.
        """
        try:
            kind = format_of(
                request.headers["content-type"], request.headers.get("content-disposition")
            )
        except UnknownFormat as error:
            raise HTTPException(415, str(error)) from error
        file = await self._received(request)
        try:
            rows = _Rows(kind.records(yielding(file), self._portfolio), self._rows_limit)
            results = self._decided(rows, request, key)
            first = await anext(results, None)
            if first is None:
                raise HTTPException(422, "the batch has no record; valid: at least one")
        except Unreadable as error:
            file.close()
            raise HTTPException(422, str(error)) from error
        except BaseException:
            file.close()
            raise
        body = _written(kind.writer(self._portfolio), first, results, file)
        return StreamingResponse(body, media_type=kind.media_type)

    async def _received(self, request: Request) -> IO[bytes]:
        file: IO[bytes] | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the answer
            async for piece in request.stream():
                file.write(piece)
            file.seek(0)  # which writes what is still in its buffer
        except BaseException as error:
            with suppress(OSError):  # there may be no room for what is still in its buffer
                if file is not None:
                    file.close()
            if isinstance(error, OSError):
                raise LogUnwritable(error) from error
            raise
        return file

    async def _decided(
        self, rows: "_Rows", request: Request, key: str | None
    ) -> AsyncIterator[list[Result]]:
        """Results, some rows at a time, in order. Where the body cannot be read on, the last one
        says so.
        """
        row = 0
        while True:
            try:
                results, customers = await asyncio.to_thread(self._validated_rows, rows, request)
            except Unreadable as error:
                if row == 0:
                    raise
                yield [_refused(row, str(error))]
                return
            if not results and not customers:
                return
            if customers:
                results += await self._decided_rows(customers, request, key, may_raise=row == 0)
            results.sort(key=lambda result: result.row)
            row = results[-1].row + 1
            yield results

    def _validated_rows(
        self, rows: "_Rows", request: Request
    ) -> tuple[list[Result], list[tuple[int, dict[str, Any]]]]:
        """The next rows: those that are wrong, and the customers on whom can be decided."""
        may_read = "read" in request.state.caller.scopes
        wrong, customers = [], []
        for row, record in BATCH_YIELD.between(rows.some()):
            if isinstance(record, NoRecord):
                wrong.append(_refused(row, str(record)))
                continue
            if isinstance(record, TableRow):
                if record.faults:
                    problems = self._problems.of_cells(record.faults, may_read)
                    wrong.append(Result(row, record.identifier, None, problems))
                else:
                    customers.append((row, record.values))
                continue
            try:
                customers.append((row, self._read(record)))
            except ValidationError as error:
                problems = self._problems.of(error.errors(include_url=False), may_read)
                wrong.append(
                    Result(row, _text(record.get(self._portfolio.identifier)), None, problems)
                )
                continue
        return wrong, customers

    async def _decided_rows(
        self,
        customers: list[tuple[int, dict[str, Any]]],
        request: Request,
        key: str | None,
        may_raise: bool,
    ) -> list[Result]:
        state = request.state
        batch = DecisionRequest(
            [values for _, values in customers],
            state.caller.name,
            state.request_id,
            time.perf_counter(),
            key,
            [row for row, _ in customers],
            state.trace.trace_id,
        )
        identifier = self._portfolio.identifier
        try:
            answers = await self._patiently(batch, may_raise)
        except (NoChampion, LogUnwritable, KeyUsed, Overloaded) as error:
            if may_raise:
                raise
            return [_refused(row, str(error), values.get(identifier)) for row, values in customers]
        return [
            Result(row, values.get(identifier), answer)
            for (row, values), answer in zip(customers, answers, strict=True)
        ]

    async def _patiently(self, batch: DecisionRequest, first: bool) -> list[bytes]:
        give_up = time.monotonic() + (0 if first else PATIENCE_SECONDS)
        while True:
            try:
                return await self._decider.decide(batch)
            except Overloaded:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(PATIENCE_STEP_SECONDS)


def yielding(file: IO[bytes]) -> IO[bytes]:
    """The same file, read in small pieces, each after the single requests of that moment."""
    return io.BufferedReader(_Yielding(file), PIECE_BYTES)


class _Yielding(io.RawIOBase):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        BATCH_YIELD.wait()
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _Rows:
    """The rows of a body, some at a time."""

    def __init__(self, records: Iterator[Record], limit: int) -> None:
        self._records = records
        self._limit = limit
        self._row = 0
        self._end: Unreadable | None = None

    def some(self) -> list[tuple[int, Record]]:
        """The next rows; none at the end.

        Raises:
            Unreadable: if the body cannot be read on; what came before it has been given.
        """
        if self._end is not None:
            raise self._end
        rows: list[tuple[int, Record]] = []
        try:
            for record in islice(self._records, ROWS_TOGETHER):
                if self._row == self._limit:
                    raise Unreadable(
                        f"more than {self._limit:,} rows; valid: up to so many in one batch"
                    )
                rows.append((self._row, record))
                self._row += 1
        except Unreadable as error:
            self._end = error
            if not rows:
                raise
        return rows


async def _written(
    writer: Writer, first: list[Result], results: AsyncIterator[list[Result]], file: IO[bytes]
) -> AsyncIterator[bytes]:
    try:
        yield writer.rows(first)
        async for some in results:
            yield await asyncio.to_thread(writer.rows, some)
        yield await asyncio.to_thread(writer.end)
    finally:
        file.close()


def _refused(row: int, problem: str, identifier: str | None = None) -> Result:
    return Result(row, identifier, None, ({"field": "body", "value": None, "problem": problem},))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:100]
