"""Answers `/predict/batch`: reads and decides many customers in chunks, and answers in the format
of the request.

The body is written to the disk first. Otherwise a client that reads nothing before it has sent
everything, and a server that reads on only when its answers are read, would wait for each other.
Memory holds some hundred rows.
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
    UnreadableBody,
    Writer,
)
from serving.http.media_types import UnknownFormat, format_of
from serving.http.problem_details import ContractProblems
from serving.http.schemas import RecordReader
from serving.inference.batch_yield import BATCH_YIELD
from serving.inference.decider import Decider, DecisionRequest, KeyUsed, NoChampion, Overloaded

ROWS_TOGETHER = 256
"""Rows of one run of the graph: some ten milliseconds in the batch thread."""

PATIENCE_SECONDS = 30.0
"""Longest time that a started batch waits for a busy decider."""

PATIENCE_STEP_SECONDS = 0.1


_Chunks = Iterator[list[tuple[int, Record]]]


class BatchHandler:
    """Answers `/predict/batch`.

    Args:
        decider: makes the decisions.
        portfolio: its contract applies to the rows.
        read: reads a record.
        rows_limit: largest number of rows.
        folder: for bodies.
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
            request: the gateway has checked its content type.
            key: its idempotency key.

        Raises:
            HTTPException: if no row can be read or decided.
        """
        try:
            kind = format_of(
                request.headers["content-type"], request.headers.get("content-disposition")
            )
        except UnknownFormat as error:
            raise HTTPException(415, str(error)) from error
        file = await self._receive(request)
        try:
            chunks = _chunks(kind.records(yielding(file), self._portfolio), self._rows_limit)
            results = self._results(chunks, request, key)
            first = await anext(results, None)
            if first is None:
                raise HTTPException(422, "the batch has no record; valid: at least one")
        except UnreadableBody as error:
            file.close()
            raise HTTPException(422, str(error)) from error
        except BaseException:
            file.close()
            raise
        body = _response_body(kind.writer(self._portfolio), first, results, file)
        return StreamingResponse(body, media_type=kind.media_type)

    async def _receive(self, request: Request) -> IO[bytes]:
        file: IO[bytes] | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the answer
            async for piece in request.stream():
                file.write(piece)
            file.seek(0)  # flushes its buffer
        except BaseException as error:
            with suppress(OSError):  # the disk may be too full for its buffer
                if file is not None:
                    file.close()
            if isinstance(error, OSError):
                self._decider.report_not_written()
                raise LogUnwritable(error) from error
            raise
        return file

    async def _results(
        self, chunks: _Chunks, request: Request, key: str | None
    ) -> AsyncIterator[list[Result]]:
        """Results in order, in chunks. If the rest of the body cannot be read, the last result has
        the problem.
        """
        row = 0
        while True:
            try:
                results, customers = await asyncio.to_thread(self._validated_rows, chunks, request)
            except UnreadableBody as error:
                if row == 0:
                    raise
                yield [_problem_result(row, str(error))]
                return
            if not results and not customers:
                return
            if customers:
                results += await self._decide(customers, request, key, may_raise=row == 0)
            results.sort(key=lambda result: result.row)
            row = results[-1].row + 1
            yield results

    def _validated_rows(
        self, chunks: _Chunks, request: Request
    ) -> tuple[list[Result], list[tuple[int, dict[str, Any]]]]:
        """The next rows: results of invalid rows, and the valid customers."""
        may_read = "read" in request.state.caller.scopes
        invalid, customers = [], []
        for row, record in BATCH_YIELD.between(next(chunks, [])):
            if isinstance(record, NoRecord):
                invalid.append(_problem_result(row, str(record)))
                continue
            if isinstance(record, TableRow):
                if record.faults:
                    problems = self._problems.of_cells(record.faults, may_read)
                    invalid.append(Result(row, record.identifier, None, problems))
                else:
                    customers.append((row, record.values))
                continue
            try:
                customers.append((row, self._read(record)))
            except ValidationError as error:
                problems = self._problems.of(error.errors(include_url=False), may_read)
                sent = record.get(self._portfolio.identifier)
                identifier = None if sent is None else str(sent)[:100]
                invalid.append(Result(row, identifier, None, problems))
        return invalid, customers

    async def _decide(
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
            answers = await self._decide_with_retries(batch, may_raise)
        except (NoChampion, LogUnwritable, KeyUsed, Overloaded) as error:
            if may_raise:
                raise
            return [
                _problem_result(row, str(error), values.get(identifier))
                for row, values in customers
            ]
        return [
            Result(row, values.get(identifier), answer)
            for (row, values), answer in zip(customers, answers, strict=True)
        ]

    async def _decide_with_retries(self, batch: DecisionRequest, first: bool) -> list[bytes]:
        deadline = time.monotonic() + (0 if first else PATIENCE_SECONDS)
        while True:
            try:
                return await self._decider.decide(batch)
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(PATIENCE_STEP_SECONDS)


def yielding(file: IO[bytes]) -> IO[bytes]:
    """The same file, read in small pieces that each yield to single requests."""
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


def _chunks(records: Iterator[Record], limit: int) -> _Chunks:
    """The rows of a body with their numbers, in chunks.

    Raises:
        UnreadableBody: if the rest cannot be read; all rows before it were yielded.
    """
    row = 0
    while True:
        rows: list[tuple[int, Record]] = []
        try:
            for record in islice(records, ROWS_TOGETHER):
                if row == limit:
                    raise UnreadableBody(
                        f"more than {limit:,} rows; valid: up to so many in one batch"
                    )
                rows.append((row, record))
                row += 1
        except UnreadableBody:
            if rows:
                yield rows
            raise
        if not rows:
            return
        yield rows


async def _response_body(
    writer: Writer, first: list[Result], results: AsyncIterator[list[Result]], file: IO[bytes]
) -> AsyncIterator[bytes]:
    try:
        yield writer.rows(first)
        async for chunk in results:
            yield await asyncio.to_thread(writer.rows, chunk)
        yield await asyncio.to_thread(writer.end)
    finally:
        file.close()


def _problem_result(row: int, problem: str, identifier: str | None = None) -> Result:
    return Result(row, identifier, None, ({"field": "body", "value": None, "problem": problem},))
