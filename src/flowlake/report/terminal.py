"""Tables and progress for the terminal; plain text where the output is no terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flowlake.core.events import on_stderr

PLAIN_WIDTH = 160
SHOWN_ROWS = 500
PLAIN_PROGRESS_EVERY = 10.0
"""Percent between two lines of progress where there is no terminal."""


def console(stderr: bool = False, file: IO[str] | None = None) -> Console:
    """Folds to the terminal's width; where there is no terminal, lines are as long as they need to be up to PLAIN_WIDTH."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, file=file, highlight=False, width=width)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> RenderableType:
    """A table that fits the terminal: numbers to the right, long text folded; a title, if there is one, on a line of its own."""
    made = Table(header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], (int, float)) or row[i] in ("", None) for row in rows)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(text(value) for value in row))
    return Group(Text(title, style="bold"), made) if title else made


def hanging(label: str, words: str, width: int) -> str:
    """`words` after `label`, further lines indented to where the words began."""
    return textwrap.fill(words, max(width, 40), initial_indent=label, subsequent_indent=" " * len(label))


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
    """Progress on standard error: a bar on a terminal, else a line now and then; nothing where it belongs to the events."""
    if on_stderr():
        yield _silent
        return
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


def _silent(done: int, total: int, label: str) -> None:
    """The events say it."""


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
