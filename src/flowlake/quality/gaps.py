"""What is missing, cut short, doubled or repeated in a session's data, against its own recent past.

Vendors leave such gaps silently: a day without a file, a tape that ends at 15:31, a file with every row twice, yesterday's file
under today's name. Each gap becomes one row of `gaps` and one finding with its cure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.model import SESSION, Finding, Inputs, Output
from flowlake.datasets.quality import ALL
from flowlake.quality.activity import session_minutes

LISTING = "bucket_listing"
LOOK_BACK = 20
"""Sessions of the calendar that count as the recent past: a month, so that listings and habits are still the same."""
MIN_SESSIONS = 3
"""Sessions with data that the past needs before an absence means anything."""
EXPECTED_SHARE = 0.8
"""Share of the past sessions with a feed from which on its file is expected: a single gap in the past does not excuse another."""
USUAL = 0.9
"""Quantile of the past that stands for its extreme: an earlier gap must not excuse the next one."""
LARGE_ROWS = 20
"""Median rows a session from which on an underlying's absence is no chance: a Poisson count of mean 20 is 0 once in 5e8."""
FEW_ROWS_SHARE = 0.2
"""Share of the quietest past session below which a feed is cut: a half day still brings about half."""
MIN_FEED_ROWS = 200
SILENCE_ODDS = 8.0
"""A tape of even intensity is silent for this many mean waiting times with a chance of e^-8; the open and close are no sparser."""
SILENCE_MARGIN_MINUTES = 10
DOUBLED_RATIO = 1.9
"""Rows per distinct row from which on a file is doubled; real repeats stay below 1.1."""
MIN_CONTENT_ROWS = 20
"""Rows from which on equal content is no coincidence."""
EMPTY_FILE_BYTES = 20
"""A gzip file without content has 20 bytes."""

FEEDS: dict[str, tuple[str, ...]] = {
    "option_trades": (
        "massive_option_trades",
        "databento_option_trades",
        "datashop_option_trades",
        "thetadata_option_trades",
    ),
    "option_bars_1m": ("massive_option_minute", "databento_option_minute", "lean_option_minute"),
    "option_bars_1d": ("massive_option_day", "databento_option_day", "datashop_option_eod", "thetadata_option_eod"),
    "equity_bars_1m": ("massive_stock_minute", "lean_index_minute"),
    "equity_bars_1d": ("massive_stock_day",),
    "open_interest": (
        "open_interest_file",
        "cboe_snapshot",
        "databento_statistics",
        "datashop_option_eod",
        "thetadata_open_interest",
        "lean_open_interest",
        "lean_open_interest_daily",
    ),
}
"""Curated dataset -> raw datasets that can feed it."""


@dataclass(frozen=True)
class Gap:
    """One gap. `subject` is an underlying, a file's date, or `*`; `evidence` holds the rows that show it."""

    dataset: str
    rule: str
    subject: str
    rows: int
    measured: float | None
    expected: float | None
    what: str
    cure: str
    evidence: pl.DataFrame

    @property
    def underlying(self) -> str | None:
        return None if self.subject == ALL or self.subject[:1].isdigit() else self.subject

    def finding(self) -> Finding:
        return Finding(self.dataset, self.rule, self.what, self.cure, rows=self.evidence)


def find_gaps(inputs: Inputs, session: date) -> Output:
    """Table `gaps` and a finding per row.

    Optional inputs: `activity` with up to 20 sessions before this one, and `bucket_listing` (key, dataset, file_date, size,
    etag of the files dated from this session up to before the next one).
    """
    activity = inputs.get("activity")
    listing = inputs.get(LISTING)
    gaps: list[Gap] = []
    if activity is not None:
        first = sessions.offset(session, -LOOK_BACK)
        past = activity.filter(pl.col(SESSION).is_between(first, session, closed="left"))
        today = activity.filter(pl.col(SESSION) == session)
        compared = _with_past(today, past)
        if listing is not None:
            gaps.extend(_missing_files(past, listing, session))
        for detector in _DETECTORS:
            gaps.extend(detector(compared, session))
        gaps.extend(_missing_underlyings(today, past, session))
        gaps.extend(_stale_repeats(today, past, session))
    if listing is not None:
        gaps.extend(_holiday_files(listing))
        gaps.extend(_empty_files(listing, session))
    gaps.sort(key=lambda gap: (gap.dataset, gap.rule, gap.subject))
    return Output({"gaps": _table(gaps)}, tuple(gap.finding() for gap in gaps))


_COLUMNS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "rule": pl.String(),
    "subject": pl.String(),
    "underlying": pl.String(),
    "rows": pl.Int64(),
    "measured": pl.Float64(),
    "expected": pl.Float64(),
    "what": pl.String(),
    "cure": pl.String(),
}


def _table(gaps: list[Gap]) -> pl.DataFrame:
    return pl.DataFrame([{name: getattr(gap, name) for name in _COLUMNS} for gap in gaps], schema=_COLUMNS)


def _with_past(today: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Today's rows with what the same source and underlying did in the recent past; null where it has none."""
    history = past.group_by("source", "underlying").agg(
        pl.len().alias("past_sessions"),
        pl.col("rows").quantile(1 - USUAL, "higher").alias("past_fewest_rows"),
        pl.col("minutes").median().alias("past_minutes"),
        pl.col("longest_silence_minutes").quantile(USUAL, "lower").alias("past_silence"),
        pl.col("silent_end_minutes").quantile(USUAL, "lower").alias("past_end"),
    )
    return today.join(history, on=["source", "underlying"], how="left").sort("source", "underlying")


# --- Files ---------------------------------------------------------------------------------------------------------


def _missing_files(past: pl.DataFrame, listing: pl.DataFrame, session: date) -> Iterator[Gap]:
    """A feed that the past sessions had and this session's listing lacks."""
    days = past[SESSION].n_unique()
    listed = set(listing.filter(pl.col("file_date") == session)["dataset"])
    told: set[str] = set()
    for source, present in past.group_by("source").agg(pl.col(SESSION).n_unique()).sort("source").iter_rows():
        feeds = FEEDS.get(source, (source,))
        expected = days >= MIN_SESSIONS and present >= max(EXPECTED_SHARE * days, MIN_SESSIONS)
        if expected and not listed & set(feeds) and not told & set(feeds):
            told |= set(feeds)
            yield Gap(
                dataset=feeds[0],
                rule="missing_file",
                subject=ALL,
                rows=0,
                measured=0.0,
                expected=1.0,
                what=f"the bucket has no {' or '.join(feeds)} for {session}; {present} of the {days} sessions before had it",
                cure="download the session's file from the vendor again; if the vendor lacks it too, ask for it",
                evidence=past.filter((pl.col("source") == source) & (pl.col("underlying") == ALL)).sort(SESSION),
            )


def _holiday_files(listing: pl.DataFrame) -> Iterator[Gap]:
    dated = listing.filter(pl.col("file_date").is_not_null()).sort("dataset", "file_date", "key")
    for (dataset, day), files in dated.group_by("dataset", "file_date", maintain_order=True):
        if isinstance(day, date) and not sessions.is_session(day):
            yield Gap(
                dataset=str(dataset),
                rule="holiday_file",
                subject=str(day),
                rows=files.height,
                measured=float(files.height),
                expected=0.0,
                what=f"{files.height} file(s) of {dataset} are dated {day}, when the exchange was closed; they are not read",
                cure="compare with the file of the session before: such files usually repeat it; remove them if they do",
                evidence=files,
            )


def _empty_files(listing: pl.DataFrame, session: date) -> Iterator[Gap]:
    empty = listing.filter((pl.col("file_date") == session) & (pl.col("size") <= EMPTY_FILE_BYTES)).sort("dataset", "key")
    for (dataset,), files in empty.group_by(["dataset"], maintain_order=True):
        yield Gap(
            dataset=str(dataset),
            rule="empty_file",
            subject=ALL,
            rows=files.height,
            measured=float(files["size"].min() or 0),  # type: ignore[arg-type]
            expected=None,
            what=f"{files.height} file(s) of {dataset} for {session} hold nothing: {files['key'][0]} has {files['size'][0]} bytes",
            cure="download the file from the vendor again",
            evidence=files,
        )


# --- Rows ----------------------------------------------------------------------------------------------------------


def _few_rows(compared: pl.DataFrame, session: date) -> Iterator[Gap]:
    usual = pl.col("past_fewest_rows")
    few = compared.filter(
        (pl.col("underlying") == ALL)
        & (pl.col("past_sessions") >= MIN_SESSIONS)
        & (usual >= MIN_FEED_ROWS)
        & (pl.col("rows") < FEW_ROWS_SHARE * usual)
    )
    for row in few.iter_rows(named=True):
        what = f"{row['source']} of {session} has {row['rows']} rows, where a quiet session has {row['past_fewest_rows']:.0f}"
        cure = "the file is probably cut: compare its size with the vendor's listing and download it again"
        yield _gap(row, "few_rows", row["rows"], row["past_fewest_rows"], what, cure, few)


def _doubled(compared: pl.DataFrame, session: date) -> Iterator[Gap]:
    doubled = compared.filter(
        (pl.col("underlying") == ALL)
        & (pl.col("rows") >= MIN_CONTENT_ROWS)
        & (pl.col("rows") >= DOUBLED_RATIO * pl.col("distinct_rows"))
    )
    for row in doubled.iter_rows(named=True):
        what = (
            f"{row['source']} of {session} has {row['rows']} rows, of which only {row['distinct_rows']} differ: the file is doubled"
        )
        cure = "download the file from the vendor again; do not drop repeated rows, because single repeats can be real"
        yield _gap(row, "doubled", row["rows"], row["distinct_rows"], what, cure, doubled)


def _allowed_silence(past: str, length: int) -> pl.Expr:
    """Minutes of silence that are no gap: a long one of the past, a margin, and what chance does at the usual density."""
    return pl.col(past) + SILENCE_MARGIN_MINUTES + SILENCE_ODDS * length / pl.col("past_minutes").clip(1)


def _silent(compared: pl.DataFrame, measure: str, past: str, session: date) -> pl.DataFrame:
    allowed = _allowed_silence(past, session_minutes(session))
    known = compared.filter(pl.col("past_sessions") >= MIN_SESSIONS).with_columns(allowed.alias("allowed"))
    return known.filter(pl.col(measure) > pl.col("allowed"))


def _early_stops(compared: pl.DataFrame, session: date) -> Iterator[Gap]:
    stopped = _silent(compared, "silent_end_minutes", "past_end", session)
    for row in stopped.iter_rows(named=True):
        last = row["last_utc"].strftime("%H:%M")
        what = (
            f"{row['source']} of {session}: {_whom(row)} stops at {last} UTC, {row['silent_end_minutes']} minutes before the "
            f"close; in the recent past it is {row['past_end']:.0f}"
        )
        cure = "the tape is cut: download the file again once the vendor has replaced it; until then distrust the session's flow"
        yield _gap(row, "early_stop", row["silent_end_minutes"], row["past_end"], what, cure, stopped)


def _missing_minutes(compared: pl.DataFrame, session: date) -> Iterator[Gap]:
    silent = _silent(compared, "longest_silence_minutes", "past_silence", session)
    for row in silent.iter_rows(named=True):
        what = (
            f"{row['source']} of {session}: {_whom(row)} is silent for {row['longest_silence_minutes']} minutes inside the "
            f"session; in the recent past it is {row['past_silence']:.0f}"
        )
        cure = "check whether trading was halted; if not, download the file again once the vendor has replaced it"
        yield _gap(row, "missing_minutes", row["longest_silence_minutes"], row["past_silence"], what, cure, silent)


_DETECTORS: tuple[Callable[[pl.DataFrame, date], Iterator[Gap]], ...] = (_few_rows, _doubled, _early_stops, _missing_minutes)


def _missing_underlyings(today: pl.DataFrame, past: pl.DataFrame, session: date) -> Iterator[Gap]:
    """A large underlying of every recent session without a row, in a source that has rows."""
    delivered = today.select("source").unique()
    days = past.group_by("source").agg(pl.col(SESSION).n_unique().alias("days"))
    usual = (
        past.filter(pl.col("underlying") != ALL)
        .group_by("source", "underlying")
        .agg(pl.col(SESSION).n_unique().alias("present"), pl.col("rows").median().alias("usual_rows"))
        .join(days, on="source")
        .filter((pl.col("days") >= MIN_SESSIONS) & (pl.col("present") == pl.col("days")) & (pl.col("usual_rows") >= LARGE_ROWS))
    )
    absent = usual.join(delivered, on="source", how="semi").join(today, on=["source", "underlying"], how="anti")
    for row in absent.sort("source", "underlying").iter_rows(named=True):
        what = (
            f"{row['source']} of {session} has no row of {row['underlying']}, which had rows in each of the {row['days']} sessions "
            f"before (median {row['usual_rows']:.0f})"
        )
        cure = "check for a delisting or a new ticker; if there is none, download the file again and ask the vendor"
        evidence = past.filter((pl.col("source") == row["source"]) & (pl.col("underlying") == row["underlying"])).sort(SESSION)
        yield Gap(row["source"], "missing_underlying", row["underlying"], 0, 0.0, row["usual_rows"], what, cure, evidence)


def _stale_repeats(today: pl.DataFrame, past: pl.DataFrame, session: date) -> Iterator[Gap]:
    """The content of an earlier session again. Where all of a source repeats, its underlyings are not told one by one."""
    large = today.filter(pl.col("rows") >= MIN_CONTENT_ROWS)
    key = ["source", "underlying", "content_hash"]
    earlier = past.group_by(key).agg(pl.col(SESSION).max().alias("repeats"))
    repeated = large.join(earlier, on=key).sort("source", "underlying")
    whole = set(repeated.filter(pl.col("underlying") == ALL)["source"])
    for row in repeated.iter_rows(named=True):
        if row["underlying"] != ALL and row["source"] in whole:
            continue
        what = f"{row['source']} of {session}: {_whom(row)} has the very rows of {row['repeats']}, apart from their dates"
        cure = "the vendor repeated an old file: download the session's file again, and distrust the session until then"
        yield _gap(row, "stale_repeat", row["rows"], 0, what, cure, repeated)


def _whom(row: dict[str, Any]) -> str:
    return "the whole file" if row["underlying"] == ALL else str(row["underlying"])


def _gap(row: dict[str, Any], rule: str, measured: float, expected: float, what: str, cure: str, evidence: pl.DataFrame) -> Gap:
    shown = evidence.filter((pl.col("source") == row["source"]) & (pl.col("underlying") == row["underlying"]))
    return Gap(row["source"], rule, row["underlying"], row["rows"], float(measured), float(expected), what, cure, shown)
