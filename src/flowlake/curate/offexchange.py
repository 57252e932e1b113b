"""Off-exchange stock prints, and minute bars of the lit trades beside them, both from one file of stock trades.

A print is off exchange where the exchange is FINRA (4) and a trade reporting facility is named; an empty facility and the facility
0 both mean none. Trades of FINRA without a facility are of neither kind: they are told in a note.

Corrections come as the vendor's correction indicator: 1 a trade that holds corrected values; 7 and 8 a trade later found to be
in error or cancelled; 10 and 11 the messages that said so; 12 the message of a correction, with the values before it. Messages
are no trades. Where a file has the message but no trade with the mark, it cancels one earlier trade of the same ticker, exchange,
facility, price and size; the latest, and each message another one. Nothing is matched by trade id, which is not unique, and no
trade is dropped for looking like another one.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions as calendar
from flowlake.curate import stock_conditions
from flowlake.curate.screening import ROW, RowRule, Subject, is_positive, screen
from flowlake.curate.timestamps import as_utc, nanoseconds, on_session_date
from flowlake.datasets.model import Finding, Inputs, Output
from flowlake.datasets.offexchange import LATE_SECONDS, LIT_BARS_1M, MILLIONTHS, OFFEXCHANGE_PRINTS, TEN_THOUSANDTHS, decimal

SOURCE = "massive_stock_trades"
FINRA = 4
CORRECTED = 1
STRUCK = (7, 8)
STRIKE_MESSAGES = (10, 11)
CORRECTION_MESSAGE = 12
_INDICATORS = (0, CORRECTED, *STRUCK, *STRIKE_MESSAGES, CORRECTION_MESSAGE)
_MINUTE_NS = 60 * 10**9
_READ = (
    "ticker",
    "conditions",
    "correction",
    "exchange",
    "participant_timestamp",
    "price",
    "sip_timestamp",
    "size",
    "trf_id",
    "trf_timestamp",
    ROW,
)
_SAME_TRADE = ("ticker", "exchange", "facility", "price", "size")
_CHECK_FILE = "check that the file belongs to this session; ask the vendor for a corrected file"


def offexchange_prints(inputs: Inputs, session: date) -> Output:
    """Tables `offexchange_prints` and `lit_bars_1m`. Required input: massive_stock_trades."""
    trades = inputs[SOURCE].select(*_READ, facility=pl.col("trf_id").fill_null(0))
    decoded = stock_conditions.decode(trades["conditions"])
    of_finra, has_facility = pl.col("exchange") == FINRA, pl.col("facility") != 0

    about = _about(OFFEXCHANGE_PRINTS.name, session)
    off, findings = _standing(trades.filter(of_finra & has_facility), decoded, about)
    findings += _notes(trades.filter(of_finra & ~has_facility), off, about)
    prints = _prints(off)
    del off  # a whole session is large: one part at a time
    lit, lit_findings = _standing(
        trades.filter(~of_finra).drop("participant_timestamp", "trf_timestamp"),
        decoded.select("conditions", "in_volume", "sets_price"),
        _about(LIT_BARS_1M.name, session),
    )
    tables = {OFFEXCHANGE_PRINTS.name: prints, LIT_BARS_1M.name: _lit_bars(lit, session)}
    return Output(tables, (*findings, *lit_findings))


def _about(dataset: str, session: date) -> Subject:
    return Subject(dataset, SOURCE, session, _READ)


def _standing(part: pl.DataFrame, decoded: pl.DataFrame, about: Subject) -> tuple[pl.DataFrame, list[Finding]]:
    """The trades of a part, decoded and screened, with `is_cancelled`."""
    indicator = pl.col("correction").str.strip_chars().replace("", "0").fill_null("0").cast(pl.Int64, strict=False)
    rows = part.with_columns(indicator=indicator).join(
        decoded, on="conditions", how="left", nulls_equal=True, maintain_order="left"
    )
    kept, findings = screen(rows, about, _rules(about.session))
    trades, messages, unmatched = _cancelled(kept)
    if unmatched.height:
        findings.append(
            about.rejected(
                "unmatched_cancel",
                unmatched,
                "the cancel or error message has no earlier trade of the same ticker, facility, price and size",
                "nothing to do for a few (the trade may be of an earlier session); many point to a truncated file",
            )
        )
    corrected = (trades["indicator"] == CORRECTED).sum()
    if messages.height != corrected:
        findings.append(
            about.note(
                "unpaired_correction",
                messages,
                f"{messages.height} correction messages for {corrected} corrected trades",
                "nothing to do for a few; more messages than trades mean that some trades still hold the wrong values",
            )
        )
    return trades, findings


def _rules(session: date) -> tuple[RowRule, ...]:
    return (
        RowRule(
            "unknown_correction",
            ~pl.col("indicator").is_in(_INDICATORS),
            "the correction indicator is none of the tape's",
            "ask the vendor what it means; the trade may be one that never happened",
        ),
        RowRule("price_not_positive", ~is_positive("price"), "the price is not above 0", _CHECK_FILE),
        RowRule("size_not_positive", ~is_positive("size"), "the size is not above 0", _CHECK_FILE),
        RowRule(
            "outside_session_date",
            ~on_session_date("sip_timestamp", session),
            "the timestamp lies outside the session's New York date",
            _CHECK_FILE,
        ),
    )


def _notes(without_facility: pl.DataFrame, off: pl.DataFrame, about: Subject) -> list[Finding]:
    findings = []
    if without_facility.height:
        findings.append(
            about.note(
                "no_facility",
                without_facility,
                "FINRA without a reporting facility; they are neither off-exchange prints nor lit trades here",
                "nothing to do for a few; if no print has a facility, ask the vendor for a corrected file",
            )
        )
    unknown = off.filter(pl.col("condition_group") == stock_conditions.UNKNOWN)
    if unknown.height:
        findings.append(
            about.note(
                "unknown_condition",
                unknown,
                "the sale condition is not in the policy; the prints are neither in the volume nor priced",
                "add the condition to the policy under a new version",
            )
        )
    return findings


def _cancelled(part: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The trades with `is_cancelled`, the correction messages, and the cancel messages without a trade."""
    trades = part.filter(~pl.col("indicator").is_in((*STRIKE_MESSAGES, CORRECTION_MESSAGE)))
    corrections = part.filter(pl.col("indicator") == CORRECTION_MESSAGE)
    messages = part.filter(pl.col("indicator").is_in(STRIKE_MESSAGES))
    is_struck = pl.col("indicator").is_in(STRUCK)
    if not messages.height:
        return trades.with_columns(is_cancelled=is_struck), corrections, messages
    # Within one timestamp the content decides, never the order of the rows.
    order = (*_SAME_TRADE, "sip_timestamp", "conditions", ROW)
    numbered = trades.with_row_index("number")
    candidates = numbered.join(messages.select(_SAME_TRADE).unique(), on=_SAME_TRADE, how="semi").sort(order, nulls_last=True)
    messages = messages.sort(order, nulls_last=True)
    free: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for *key, moment, indicator, number in candidates.select(*_SAME_TRADE, "sip_timestamp", "indicator", "number").iter_rows():
        free.setdefault((*key, indicator in STRUCK), []).append((moment, number))
    struck: list[int] = []
    unmatched: list[bool] = []
    for *key, moment in messages.select(*_SAME_TRADE, "sip_timestamp").iter_rows():
        taken = _take(free.get((*key, True), []), moment)
        if taken is None:
            taken = _take(free.get((*key, False), []), moment)
        unmatched.append(taken is None)
        if taken is not None:
            struck.append(taken)
    found = pl.col("number").is_in(pl.Series(struck, dtype=numbered["number"].dtype).implode())
    marked = numbered.with_columns(is_cancelled=is_struck | found).drop("number")
    return marked, corrections, messages.filter(pl.Series(unmatched, dtype=pl.Boolean))


def _take(stack: list[tuple[int, int]], before: int) -> int | None:
    """Remove the latest trade earlier than the message, and give its number."""
    place = next((i for i in reversed(range(len(stack))) if stack[i][0] < before), None)
    return None if place is None else stack.pop(place)[1]


def _given(column: str) -> pl.Expr:
    """Nanoseconds, null where the vendor writes 0 for none."""
    return pl.when(pl.col(column) > 0).then(pl.col(column))


def _dollars() -> pl.Expr:
    """Price x size in ten-thousandths of a dollar."""
    return (pl.col("price") * pl.col("size") * TEN_THOUSANDTHS).round().cast(pl.Int64)


def _prints(trades: pl.DataFrame) -> pl.DataFrame:
    delay = pl.col("sip_timestamp") - _given("participant_timestamp")
    is_late = (pl.col("is_out_of_sequence") | (delay > LATE_SECONDS * 10**9)).fill_null(False)
    stands = ~pl.col("is_cancelled")
    prints = trades.with_columns(report_delay_ns=delay, is_late=is_late).with_columns(
        pl.col("ticker").alias("underlying"),
        as_utc("sip_timestamp").alias("ts_utc"),
        as_utc(_given("participant_timestamp")).alias("participant_ts_utc"),
        as_utc(_given("trf_timestamp")).alias("trf_ts_utc"),
        _dollars().alias("dollars"),
        pl.col("in_volume") & stands,
        pl.col("sets_price") & stands,
        pl.col("has_current_price") & stands & ~pl.col("is_late"),
        (pl.col("indicator") == CORRECTED).alias("is_corrected"),
    )
    return prints.with_columns(decimal("notional_usd", prints["dollars"], TEN_THOUSANDTHS)).select(OFFEXCHANGE_PRINTS.column_names)


def _lit_bars(trades: pl.DataFrame, session: date) -> pl.DataFrame:
    """Bars of the trades that count; the order of the file decides first and last."""
    counted = (
        trades.lazy()
        .filter(pl.col("in_volume") & ~pl.col("is_cancelled"))
        .select(
            "ticker",
            (pl.col("sip_timestamp") // _MINUTE_NS * _MINUTE_NS).alias("minute"),
            pl.when(pl.col("sets_price")).then(pl.col("price")).alias("price"),
            (pl.col("size") * MILLIONTHS).round().cast(pl.Int64).alias("shares"),
            _dollars().alias("dollars"),
        )
    )
    price = pl.col("price")
    bars = (
        counted.group_by("ticker", "minute", maintain_order=True)
        .agg(
            price.drop_nulls().first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.drop_nulls().last().alias("close"),
            pl.col("shares").sum(),
            pl.col("dollars").sum(),
            pl.len().cast(pl.Int64).alias("transactions"),
        )
        .collect(engine="in-memory")
    )
    regular = pl.col("minute").is_between(
        nanoseconds(calendar.open_utc(session)), nanoseconds(calendar.close_utc(session)), closed="left"
    )
    return bars.with_columns(
        pl.col("ticker").alias("underlying"),
        as_utc("minute").alias("ts_utc"),
        decimal("volume", bars["shares"], MILLIONTHS),
        decimal("notional_usd", bars["dollars"], TEN_THOUSANDTHS),
        regular.alias("is_regular"),
    ).select(LIT_BARS_1M.column_names)
