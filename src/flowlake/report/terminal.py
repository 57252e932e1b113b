"""Tables and progress for the terminal; plain text where the output is no terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAIN_WIDTH = 160
SHOWN_ROWS = 500
PLAIN_PROGRESS_EVERY = 10.0
"""Percent between two lines of progress where there is no terminal."""


def console(stderr: bool = False, file: IO[str] | None = None) -> Console:
    """Folds to the terminal's width; where there is no terminal, lines are as long as they need to be up to PLAIN_WIDTH."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, file=file, highlight=False, width=width)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table that fits the terminal: numbers to the right, long text folded."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], (int, float)) or row[i] in ("", None) for row in rows)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(text(value) for value in row))
    return made


def text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def frame_text(frame: pl.DataFrame, form: str) -> str:
    """A query's result as `table`, `csv` or `json` (one array of objects)."""
    if form == "csv":
        return frame.write_csv()
    if form == "json":
        return json.dumps(json.loads(frame.write_json()), indent=1) + "\n"
    shown = frame.head(SHOWN_ROWS)
    out = console(file=io.StringIO())
    out.print(table("", frame.columns, shown.rows()))
    more = f", the first {SHOWN_ROWS} shown" if frame.height > SHOWN_ROWS else ""
    printed: str = out.file.getvalue()  # type: ignore[attr-defined]
    return f"{printed}{frame.height} rows{more}\n"


class Advance(Protocol):
    def __call__(self, done: int, total: int, label: str) -> None: ...


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """Progress on standard error: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _plain(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[label]}"),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, label="")

        def advance(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, label=label)

        yield advance


def _plain(what: str) -> Advance:
    shown = [-PLAIN_PROGRESS_EVERY]

    def advance(done: int, total: int, label: str) -> None:
        percent = 100.0 * done / max(total, 1)
        if percent >= shown[0] + PLAIN_PROGRESS_EVERY or (done == total and shown[0] < 100.0):
            shown[0] = percent
            print(f"{what}: {done} of {total} ({percent:.0f} %) {label}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is what this module is for

    return advance


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
