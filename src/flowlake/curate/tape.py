"""Curated option prints from batches of the raw dataset: what `trades.option_trades` makes of a table, without holding it.

A batch holds whole contracts, so that cancels are matched and prints are ordered within it. The fields of a contract are looked up
once per ticker, the meaning of conditions once per distinct text; what is done per row is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flowlake.core import sessions as calendar
from flowlake.curate import _prints, conditions, trades
from flowlake.curate.conditions import ConditionPolicy
from flowlake.curate.roots import root_terms
from flowlake.curate.screening import NOTE_ROWS, ROW, Subject
from flowlake.curate.symbols import VENDOR_PREFIX, contract_of_ticker, parse_tickers
from flowlake.curate.timestamps import nanoseconds
from flowlake.datasets.batch import Batch, BatchColumn, Coded, Plain, Runs, Stream, WholeTableNeededError, joined, part, to_frame
from flowlake.datasets.curated import CONTRACT_COLUMNS, CONTRACT_KEY, OPTION_TRADES
from flowlake.datasets.model import KNOWN_AT, SESSION, Finding, Inputs
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES as RAW

BATCH_ROWS = 262_144
Terms = Callable[[pl.Series], pl.DataFrame]
"""Tickers to their contracts, a row each in their order: the contract's columns and `multiplier`, null where there is none."""
_CONTRACT = [column.name for column in CONTRACT_COLUMNS]
_MULTIPLIER = "multiplier"


def option_trades(batches: Iterable[Batch], inputs: Inputs, session: date) -> Stream:
    """The stream of `option_trades` from batches of `massive_option_trades` in its order. Required input: contracts.

    Its rows, order and findings are those of `trades.option_trades`. Raises WholeTableNeededError, while it is read, where a
    ticker lacks the vendor's prefix and so could name a contract out of turn.
    """
    return stream(batches, terms_of_master(inputs["contracts"]), session, conditions.policy_given(inputs))


def stream(batches: Iterable[Batch], terms: Terms, session: date, policy: ConditionPolicy = conditions.OPRA_MASSIVE) -> Stream:
    """The same with contracts from anywhere."""
    curator = _Curator(terms, session, policy)
    return Stream(OPTION_TRADES, (curator.curated(batch) for batch in whole_contracts(batches)), curator.findings)


def terms_of_master(master: pl.DataFrame) -> Terms:
    """Contracts as the session's contract master has them."""
    by_name = master.select(*_CONTRACT, _MULTIPLIER).sort("contract")
    names = by_name.get_column("contract")

    def terms(tickers: pl.Series) -> pl.DataFrame:
        wanted = tickers.str.strip_prefix(VENDOR_PREFIX).alias("contract")
        first = int(names.search_sorted(str(wanted.min()), side="left"))
        end = int(names.search_sorted(str(wanted.max()), side="right"))
        return wanted.to_frame().join(by_name.slice(first, end - first), on="contract", how="left", maintain_order="left")

    return terms


def terms_of_names(session: date, contract_roots: pl.DataFrame | None = None) -> Terms:
    """Contracts as their tickers spell them, on the terms of their roots: for a tape without a contract master."""

    def terms(tickers: pl.Series) -> pl.DataFrame:
        parsed = parse_tickers(tickers).with_columns(root=pl.when(pl.col("expiry") >= session).then("root"))
        of_root = root_terms(parsed.get_column("root").drop_nulls(), contract_roots, session)
        known = parsed.join(of_root.select("root", "underlying", _MULTIPLIER), on="root", how="left")
        return tickers.alias("ticker").to_frame().join(known, on="ticker", how="left", maintain_order="left")

    return terms


def whole_contracts(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same rows cut so that no contract is split, and no later batch holds a contract that belongs before one given earlier.

    Tickers ascend as texts, contracts root by root. The two orders differ only among roots that share their leading letters, such
    as GOOG and GOOG1: once another root than the letters alone has appeared, the rows of those letters stay together.
    """
    held: list[Batch] = []
    wanted = BATCH_ROWS
    for batch in batches:
        if sum(b.rows for b in held) >= wanted:
            whole = joined(held)
            of_ticker = whole.runs("ticker")
            closed = _closed(pl.concat([of_ticker.values, batch.runs("ticker").values.head(1)]))
            end = int(of_ticker.lengths[:closed].sum())
            if end:
                yield part(whole, 0, end)
            held = [part(whole, end, whole.rows)] if end < whole.rows else []
            wanted = BATCH_ROWS if end else 2 * whole.rows
        held.append(batch)
    if held:
        yield joined(held)


def _closed(tickers: pl.Series) -> int:
    """How many leading tickers no later one can belong between; the last is only there to be looked ahead at."""
    if not tickers.str.starts_with(VENDOR_PREFIX).all():
        raise WholeTableNeededError("a ticker lacks the vendor's prefix")
    letters = tickers.str.extract(r"^O:([A-Z]*)")
    # The 15 characters behind the root are of fixed width.
    has_more = (letters.str.len_bytes() != tickers.str.len_bytes().cast(pl.Int64) - len(VENDOR_PREFIX) - 15).to_numpy()
    begins = (letters != letters.shift(1)).fill_null(True).to_numpy()
    before = np.concatenate([[0], np.cumsum(has_more)])[:-1]
    at_begin = before[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    is_new = (tickers != tickers.shift(1)).fill_null(False).to_numpy()
    safe = np.flatnonzero(is_new & (begins | (before == at_begin)))
    return int(safe[-1]) if safe.size else 0


@dataclass(frozen=True)
class _Marks:
    """The meaning of condition code i at i + 1, that of no condition at 0. A mark is twice that place, 1 more once cancelled."""

    count: int
    columns: dict[str, pl.Series]
    """Every column of a print that follows from conditions and cancellation, by mark."""
    rank: NDArray[np.int32]
    is_extended: NDArray[np.bool_]
    is_cancel: NDArray[np.bool_]
    noted: tuple[NDArray[np.bool_], ...]
    """For the first notes of `trades.NOTES`, which are about conditions."""

    @classmethod
    def of(cls, texts: pl.Series, policy: ConditionPolicy) -> _Marks:
        written = pl.concat([pl.Series([None], dtype=pl.String), texts]).alias("conditions").to_frame()
        met = written.join(
            conditions.decode(written.get_column("conditions"), policy),
            on="conditions",
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        marks = (
            met.with_columns(pl.lit(pl.Series([False, True])).implode().alias("is_cancelled"))
            .explode("is_cancelled")
            .with_columns(may_be_signed=pl.col("may_be_signed") & ~pl.col("is_cancelled"))
        )
        names = [name for name in OPTION_TRADES.column_names if name in marks.columns]
        order = marks.with_row_index("mark").sort(names, nulls_last=True).get_column("mark").to_numpy()
        rank = np.empty(order.size, np.int32)
        rank[order] = np.arange(order.size)
        return cls(
            texts.len(),
            {name: marks.get_column(name) for name in names if name != "conditions"},
            rank,
            met.get_column("is_extended_hours").to_numpy(),
            met.get_column("is_cancel").to_numpy(),
            tuple(met.select(note.concerns).to_series().to_numpy() for note in trades.NOTES[:2]),
        )


@dataclass
class _Noted:
    """Rows that a note is about: how many, and the first of them by their number in the file."""

    count: int = 0
    rows: pl.DataFrame | None = None

    def add(self, batch: Batch, at: NDArray[np.int64], session: date) -> None:
        numbers = batch.plain(ROW).values[at]
        first = at[np.argsort(numbers, kind="stable")[:NOTE_ROWS]]
        found = to_frame(batch, RAW, first, session)
        self.rows = (found if self.rows is None else pl.concat([self.rows, found]).sort(ROW)).head(NOTE_ROWS)
        self.count += at.size


class _Curator:
    """Curates batches one after the other and remembers what the findings will say."""

    def __init__(self, terms: Terms, session: date, policy: ConditionPolicy) -> None:
        self._terms, self._session, self._policy = terms, session, policy
        self._marks = _Marks.of(pl.Series(dtype=pl.String), policy)
        self._rules = trades.rules(session)
        self._rejected: list[list[pl.DataFrame]] = [[] for _ in self._rules]
        self._notes = [_Noted() for _ in trades.NOTES]
        self._unmatched: list[pl.DataFrame] = []
        first, last, evening = trades.trading_hours(session)
        self._hours, self._evening = (first, last), evening
        day, after = (calendar.at_et(session + timedelta(days=days), time(0)) for days in (0, 1))
        self._day = nanoseconds(day), nanoseconds(after)

    def findings(self) -> tuple[Finding, ...]:
        about = Subject("option_trades", trades.SOURCE, self._session, (*RAW.polars_schema(), SESSION))
        found = [
            about.rejected(rule.name, pl.concat(rows), rule.why, rule.cure)
            for rule, rows in zip(self._rules, self._rejected, strict=True)
            if rows
        ]
        for note, noted in zip(trades.NOTES, self._notes, strict=True):
            if noted.rows is not None:
                found.append(about.note(note.name, noted.rows, note.why, note.cure, noted.count))
        if self._unmatched:
            found.append(about.rejected("unmatched_cancel", pl.concat(self._unmatched), *trades.UNMATCHED_CANCEL))
        return tuple(found)

    def curated(self, batch: Batch) -> Batch:
        """The curated rows of a batch of whole contracts, in their order."""
        tickers, condition = batch.runs("ticker"), batch.coded("conditions")
        if not tickers.values.str.starts_with(VENDOR_PREFIX).all():
            raise WholeTableNeededError("a ticker lacks the vendor's prefix")
        if condition.values.len() != self._marks.count:
            self._marks = _Marks.of(condition.values, self._policy)
        marks = self._marks
        moment, price, size, exchange = (batch.plain(n).values for n in ("sip_timestamp", "price", "size", "exchange"))
        terms = self._terms(tickers.values)
        is_good = self._screened(batch, terms.get_column("root").is_not_null().to_numpy(), moment, price, size)
        code = condition.codes.astype(np.int64) + 1
        self._note(batch, is_good, code)
        mark = (2 * code).astype(np.int32)
        if marks.is_cancel.any():
            is_message = marks.is_cancel[code] & is_good
            if is_message.any():
                mark[self._cancelled(batch, is_good, is_message)] += 1
                is_good &= ~is_message
        by_contract = terms.with_row_index("run").drop_nulls("root").sort(CONTRACT_KEY)
        runs = by_contract.get_column("run").to_numpy().astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(tickers.lengths)])
        order = np.empty(batch.rows, np.int64)
        counts = np.empty(runs.size, np.int64)
        rows = _prints.ordered(runs, starts, is_good, moment, price, size, exchange, mark, marks.rank, order, counts)
        return self._made(batch, by_contract.filter(counts > 0), counts[counts > 0], order[:rows], mark)

    def _screened(self, batch: Batch, is_known: NDArray[np.bool_], moment: Any, price: Any, size: Any) -> NDArray[np.bool_]:
        broken = np.empty(batch.rows, np.int8)
        lengths, codes = batch.runs("ticker").lengths, batch.coded("conditions").codes
        when = (self._day, self._hours, self._evening)
        if _prints.screened(lengths, is_known, moment, price, size, codes, self._marks.is_extended, *when, broken):
            for number, rejected in enumerate(self._rejected):
                at = np.flatnonzero(broken == number)
                if at.size:
                    rejected.append(to_frame(batch, RAW, at, self._session))
        good: NDArray[np.bool_] = broken == _prints.GOOD
        return good

    def _note(self, batch: Batch, is_good: NDArray[np.bool_], code: NDArray[np.int64]) -> None:
        unknown, blank, skewed = self._notes
        for noted, concerned in zip((unknown, blank), self._marks.noted, strict=True):
            if concerned.any():
                at = np.flatnonzero(concerned[code] & is_good)
                if at.size:
                    noted.add(batch, at, self._session)
        exchange_time, moment = batch.plain("participant_timestamp"), batch.plain("sip_timestamp")
        if exchange_time.valid is None or exchange_time.valid.any():
            is_skewed = (np.abs(moment.values - exchange_time.values) > trades.SKEW_NS) & (exchange_time.values > 0) & is_good
            if exchange_time.valid is not None:
                is_skewed &= exchange_time.valid
            if is_skewed.any():
                skewed.add(batch, np.flatnonzero(is_skewed), self._session)

    def _cancelled(self, batch: Batch, is_good: NDArray[np.bool_], is_message: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Where the prints are that a message cancels; messages are rare, so only prints like theirs are looked at."""
        price, size, exchange = (batch.plain(name).values for name in ("price", "size", "exchange"))
        found = np.zeros(batch.rows, np.bool_)
        _prints.cancel_candidates(batch.runs("ticker").lengths, is_message, is_good, price, size, exchange, found)
        at = np.flatnonzero(found)
        rows = to_frame(batch, RAW, at, self._session).with_columns(
            pl.Series("_at", at), pl.Series("_message", is_message[at]), contract=contract_of_ticker()
        )
        prints, unmatched = trades.cancelled(rows.filter(~pl.col("_message")), rows.filter("_message"))
        if unmatched.height:
            self._unmatched.append(unmatched.drop("_at", "_message", "contract"))
        return prints.filter("is_cancelled").get_column("_at").to_numpy()

    def _made(
        self, batch: Batch, contracts: pl.DataFrame, counts: NDArray[np.int64], order: NDArray[np.int64], mark: NDArray[np.int32]
    ) -> Batch:
        price, size = (batch.plain(name).values[order] for name in ("price", "size"))
        scale = (contracts.get_column(_MULTIPLIER) * _prints.TEN_THOUSANDTHS).round().cast(pl.Int64).to_numpy()
        premium = np.empty(order.size)
        if _prints.premiums(price, size, scale, counts, premium):
            for i in np.flatnonzero(np.isnan(premium)):
                of = int(scale[np.searchsorted(np.cumsum(counts), i, side="right")])
                premium[i] = int(np.rint(price[i] * 1e4)) * int(size[i]) * of // _prints.TEN_THOUSANDTHS / 1e4
        marks = mark[order]
        moment = Plain(batch.plain("sip_timestamp").values[order])
        columns: dict[str, BatchColumn] = {name: Runs(counts, contracts.get_column(name)) for name in _CONTRACT}
        columns |= {name: Coded(marks, values) for name, values in self._marks.columns.items()}
        columns |= {
            "ts_utc": moment,
            "price": Plain(price),
            "size": Plain(size.astype(np.int64)),
            "premium_usd": Plain(premium),
            "exchange": Plain(batch.plain("exchange").values[order]),
            "conditions": Coded(marks // 2 - 1, batch.coded("conditions").values),
            KNOWN_AT: moment,
        }
        return Batch(order.size, columns)
