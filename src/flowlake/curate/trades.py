"""Option prints: conditions decoded, cancels matched, impossible rows left out.

Cancel matching: a cancel message cancels one earlier print of the same contract, exchange, price and size. Each cancel, in time
order, takes the latest such print that no other cancel has taken; that of the opening report (OPRA's E) the earliest. "Earlier"
is a strictly earlier timestamp, because the order inside one millisecond is undefined. A cancel message never becomes a row; one
without a print is rejected.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flowlake.core import sessions as calendar
from flowlake.curate import conditions
from flowlake.curate.contracts import NOT_IN_MASTER
from flowlake.curate.screening import RowRule, Subject, is_positive, is_whole, screen, subject
from flowlake.curate.symbols import contract_of_ticker
from flowlake.curate.timestamps import as_utc, nanoseconds, on_session_date
from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.model import Finding, Inputs, Output
from flowlake.datasets.policies import UNREPORTED

SOURCE = "massive_option_trades"
FIRST_PRINT_ET = time(4, 0)
LAST_PRINT_ET = time(20, 15)
EVENING_BEFORE_ET = time(20, 0)
"""Global trading hours of a session begin on the evening before; only extended-hours prints may lie there."""
MAX_CLOCK_SKEW = timedelta(seconds=5)
_SAME_PRINT = ("contract", "exchange", "price", "size")
_MATCHED_BY = (*_SAME_PRINT, "sip_timestamp", "conditions", "row")
_TEN_THOUSANDTHS = 10_000
_CHECK_FILE = "check that the file belongs to this session; ask the vendor for a corrected file"


def option_trades(inputs: Inputs, session: date, source: str = SOURCE) -> Output:
    """Required inputs: massive_option_trades, contracts. `condition_policy` says what the conditions mean, see `conditions`.

    `source` is the vendor whose rows stand under `massive_option_trades`, for the findings.
    """
    raw = inputs[SOURCE]
    about = subject(raw, "option_trades", source, session)
    decoded = conditions.decode(raw["conditions"], conditions.policy_given(inputs))
    rows = (
        raw.with_columns(contract=contract_of_ticker(), conditions=pl.col("conditions").cast(pl.String))
        .join(
            inputs["contracts"].select("contract", "underlying", "root", "expiry", "right", "strike", "multiplier"),
            on="contract",
            how="left",
        )
        .join(decoded, on="conditions", how="left", nulls_equal=True)
    )
    kept, findings = screen(rows, about, rules(session))
    findings += _notes(kept, about)
    prints, unmatched = _cancelled(kept.filter(~pl.col("is_cancel")), kept.filter("is_cancel"))
    if unmatched.height:
        findings.append(about.rejected("unmatched_cancel", unmatched, *UNMATCHED_CANCEL))
    return Output({"option_trades": _table(prints)}, tuple(findings))


def trading_hours(session: date) -> tuple[int, int, int]:
    """Nanoseconds since 1970 of the first and the last moment of a print, and the first of one in extended hours."""
    first = nanoseconds(calendar.at_et(session, FIRST_PRINT_ET))
    last = nanoseconds(calendar.at_et(session, LAST_PRINT_ET))
    return first, last, nanoseconds(calendar.at_et(session - timedelta(days=1), EVENING_BEFORE_ET))


def rules(session: date) -> tuple[RowRule, ...]:
    """What makes a row impossible, in the order in which the rules are applied."""
    first, last, evening_before = trading_hours(session)
    moment = pl.col("sip_timestamp")
    extended = pl.col("is_extended_hours") & moment.is_between(evening_before, last)
    return (
        NOT_IN_MASTER,
        RowRule("price_not_positive", ~is_positive("price"), "the price is not above 0", _CHECK_FILE),
        RowRule(
            "size_not_positive",
            ~(is_positive("size") & is_whole("size")),
            "the size is not a whole number above 0",
            _CHECK_FILE,
        ),
        RowRule(
            "outside_session_date",
            ~(on_session_date("sip_timestamp", session) | extended),
            "the timestamp lies outside the session's New York date",
            _CHECK_FILE,
        ),
        RowRule(
            "outside_trading_hours",
            ~(moment.is_between(first, last) | extended),
            f"the timestamp lies outside {FIRST_PRINT_ET:%H:%M}-{LAST_PRINT_ET:%H:%M} New York",
            _CHECK_FILE,
        ),
    )


@dataclass(frozen=True)
class NoteRule:
    """Prints that `concerns` names are kept, and a finding says so."""

    name: str
    concerns: pl.Expr
    why: str
    cure: str


SKEW_NS = int(MAX_CLOCK_SKEW.total_seconds()) * 10**9
NOTES = (
    NoteRule(
        "unknown_condition",
        pl.col("condition_group") == conditions.UNKNOWN,
        "the sale condition is not in the policy; the prints are neither in the volume nor signed",
        "add the condition to the policy under a new version",
    ),
    NoteRule(
        "blank_condition",
        pl.col("condition_group") == UNREPORTED,
        "no sale condition; the prints are in the volume but may not be signed",
        "expected before 2019-11-04; later, ask the vendor for a corrected file",
    ),
    NoteRule(
        "clock_skew",
        (pl.col("participant_timestamp") > 0) & ((pl.col("sip_timestamp") - pl.col("participant_timestamp")).abs() > SKEW_NS),
        f"exchange and processor timestamps differ by more than {MAX_CLOCK_SKEW.total_seconds():.0f} s",
        "late reports do that; if most prints are concerned, do not trust the order of this session",
    ),
)
UNMATCHED_CANCEL = (
    "the cancel message has no earlier print of the same contract, exchange, price and size",
    "nothing to do for a few (the print may be of an earlier session); many point to a truncated file",
)
"""Why a cancel message without a print is rejected, and what to do about it."""


def _notes(kept: pl.DataFrame, about: Subject) -> list[Finding]:
    return [
        about.note(rule.name, concerned, rule.why, rule.cure) for rule in NOTES if (concerned := kept.filter(rule.concerns)).height
    ]


def _cancelled(prints: pl.DataFrame, messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The prints with `is_cancelled`, and the messages that matched none."""
    prints, messages = prints.with_row_index("number"), messages.with_row_index("number")
    alike = prints.join(messages.select(_SAME_PRINT).unique(), on=_SAME_PRINT, how="semi")
    rows = pl.concat([messages.select(*_MATCHED_BY, "number"), alike.select(*_MATCHED_BY, "number")])
    keys = [rows.get_column(name).rank("dense").fill_null(rows.height + 1).to_numpy() for name in _MATCHED_BY]
    takes_first = np.zeros(rows.height, np.bool_)
    takes_first[: messages.height] = messages.get_column("cancels_opening").to_numpy()
    taken, unmatched = matched(np.arange(rows.height) < messages.height, takes_first, *keys)
    is_taken = pl.col("number").is_in(rows.get_column("number").gather(taken).implode())
    return prints.with_columns(is_cancelled=is_taken).drop("number"), messages.drop("number")[unmatched]


def matched(
    is_message: NDArray[np.bool_],
    takes_first: NDArray[np.bool_],
    contract: NDArray[Any],
    exchange: NDArray[Any],
    price: NDArray[Any],
    size: NDArray[Any],
    moment: NDArray[Any],
    conditions: NDArray[Any],
    row: NDArray[Any],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the prints stand that a message cancels, and the messages that match none.

    `takes_first`: messages that cancel the earliest print instead of the latest. A number for each value will do that is in the
    order of the values. Prints unlike all messages may be missing.
    """
    same = (contract, exchange, price, size)
    # Within one timestamp the content decides, never the order of the rows; a message comes before prints that are not earlier.
    order = np.lexsort((row, conditions, ~is_message, moment, *reversed(same)))
    begins = np.zeros(order.size, np.bool_)
    for key in same:
        begins[1:] |= key[order[1:]] != key[order[:-1]]
    cancelled: list[int] = []
    unmatched: list[int] = []
    open_prints: deque[int] = deque()
    columns = (order, begins, is_message[order], takes_first[order])
    for at, is_other, is_cancel, is_of_first in zip(*(column.tolist() for column in columns), strict=True):
        if is_other:
            open_prints.clear()
        if not is_cancel:
            open_prints.append(at)
        elif open_prints:
            cancelled.append(open_prints.popleft() if is_of_first else open_prints.pop())
        else:
            unmatched.append(at)
    return np.array(cancelled, np.int64), np.array(unmatched, np.int64)


def _table(prints: pl.DataFrame) -> pl.DataFrame:
    price = (pl.col("price") * _TEN_THOUSANDTHS).round().cast(pl.Int128)
    multiplier = (pl.col("multiplier") * _TEN_THOUSANDTHS).round().cast(pl.Int128)
    premium = (price * pl.col("size").cast(pl.Int128) * multiplier // _TEN_THOUSANDTHS).cast(pl.Float64)
    # Polars divides by a constant as it multiplies by the reciprocal, which misses the nearest float; NumPy divides.
    premium_usd = prints.select(premium).to_series().to_numpy() / _TEN_THOUSANDTHS
    return prints.with_columns(
        ts_utc=as_utc("sip_timestamp"),
        size=pl.col("size").cast(pl.Int64),
        premium_usd=pl.Series(premium_usd, dtype=pl.Float64),
        may_be_signed=pl.col("may_be_signed") & ~pl.col("is_cancelled"),
    ).select(OPTION_TRADES.column_names)
