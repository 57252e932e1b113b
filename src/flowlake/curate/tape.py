"""Curated option prints from batches of the raw dataset: what `trades.option_trades` makes of a table, without holding it.

A batch holds whole contracts, so that cancels are matched and prints are ordered within it. The fields of a contract are looked up
once per ticker, the meaning of conditions once per distinct text; what is done per row is compiled.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flowlake.core import sessions as calendar
from flowlake.curate import _prints, conditions, trades
from flowlake.curate._symbols import FIXED
from flowlake.curate.conditions import ConditionPolicy
from flowlake.curate.roots import root_terms
from flowlake.curate.screening import NOTE_ROWS, ROW, Subject
from flowlake.curate.symbols import VENDOR_PREFIX, fields_of
from flowlake.curate.timestamps import nanoseconds
from flowlake.datasets.batch import (
    Batch,
    BatchColumn,
    Coded,
    Plain,
    Runs,
    Stream,
    WholeTableNeededError,
    joined,
    joined_runs,
    part,
    to_frame,
)
from flowlake.datasets.curated import CONTRACT_COLUMNS, CONTRACT_KEY, OPTION_TRADES
from flowlake.datasets.model import KNOWN_AT, SESSION, Finding, Inputs
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES as RAW

BATCH_ROWS = 196_608
"""A little fewer than a batch of the source has, which keeps back its last ticker: none then has to be joined to another."""
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
        parsed = fields_of(tickers)
        is_over = parsed.get_column("expiry") < session
        roots = parsed.get_column("root")
        if is_over.any():
            roots = roots.set(is_over, None)
        coded = roots.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
        names = pl.Series("root", coded.dictionary, pl.String)
        of_root = names.to_frame().join(root_terms(names, contract_roots, session), on="root", how="left", maintain_order="left")
        codes = coded.indices.fill_null(0).to_numpy()
        known = [of_root.get_column(name)[codes] if names.len() else roots for name in ("underlying", _MULTIPLIER)]
        return pl.DataFrame([*(parsed.get_column(name) for name in _CONTRACT if name not in ("root", "underlying")), roots, *known])

    return terms


def whole_contracts(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same rows cut so that no contract is split, and no later batch holds a contract that belongs before one given earlier.

    Tickers ascend as texts, contracts root by root. The two orders differ only among roots that share their leading letters, such
    as GOOG and GOOG1: once another root than the letters alone has appeared, the rows of those letters stay together.
    """
    held: list[Batch] = []
    for batch in batches:
        if sum(b.rows for b in held) >= BATCH_ROWS:
            tickers = joined_runs([b.runs("ticker") for b in held])
            closed = _closed(tickers.values, batch.runs("ticker").values[0])
            if end := int(tickers.lengths[:closed].sum()):
                whole = joined(held)
                yield part(whole, 0, end)
                held = [part(whole, end, whole.rows)] if end < whole.rows else []
        held.append(batch)
    if held:
        yield joined(held)


def _closed(tickers: pl.Series, following: str) -> int:
    """How many leading tickers none from `following` on can belong between."""
    _check_prefix(tickers)
    letters = re.match(f"{VENDOR_PREFIX}[A-Z]*", following)
    if letters is None:
        raise WholeTableNeededError("a ticker lacks the vendor's prefix")
    # Before the letters of the following ticker all is closed; behind them all is, up to the first root with more than letters.
    closed = bisect_left(tickers, letters[0])
    if closed == tickers.len():
        return closed
    lengths = tickers.slice(closed).str.len_bytes().to_numpy()
    with_more = np.flatnonzero(lengths != len(letters[0]) + FIXED)
    closed += int(with_more[0]) if with_more.size else lengths.size
    while closed and tickers[closed - 1] == (following if closed == tickers.len() else tickers[closed]):
        closed -= 1
    return closed


def _check_prefix(tickers: pl.Series) -> None:
    """Raise where one of the ascending tickers lacks the vendor's prefix; between two that have it all have it."""
    if not (tickers[0].startswith(VENDOR_PREFIX) and tickers[-1].startswith(VENDOR_PREFIX)):
        raise WholeTableNeededError("a ticker lacks the vendor's prefix")


def _by_contract(terms: pl.DataFrame) -> pl.DataFrame:
    """The contracts in their order, each with its `run`. Tickers ascend, so that contracts of one root are in order already."""
    known = terms.with_row_index("run")
    roots = terms.get_column("root")
    if roots.null_count():
        known, roots = known.filter(roots.is_not_null()), roots.drop_nulls()
    return known if roots.is_sorted() else known.sort(CONTRACT_KEY)


_NOTED_TRAITS = (_prints.UNKNOWN, _prints.BLANK)
"""For the first notes of `trades.NOTES`, which are about conditions."""
_TRAITS = (
    (_prints.EXTENDED_HOURS, pl.col("is_extended_hours")),
    (_prints.CANCEL, pl.col("is_cancel")),
    (_prints.CANCEL_OF_OPENING, pl.col("cancels_opening")),
    *((trait, note.concerns) for trait, note in zip(_NOTED_TRAITS, trades.NOTES, strict=False)),
)


@dataclass(frozen=True)
class _Marks:
    """The meaning of condition code i at i + 1, that of no condition at 0. A mark is twice that place, 1 more once cancelled."""

    count: int
    columns: dict[str, pl.Series]
    """Every column of a print that follows from conditions and cancellation, by mark."""
    rank: NDArray[np.int32]
    traits: NDArray[np.uint8]
    text_rank: NDArray[np.int64]
    """Of condition code i at i + 1; the texts' own order, behind all others where there is none."""

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
            met.select(pl.sum_horizontal(has.cast(pl.UInt8) * trait for trait, has in _TRAITS))
            .to_series()
            .cast(pl.UInt8)
            .to_numpy(),
            written.to_series().rank("dense").fill_null(written.height).cast(pl.Int64).to_numpy(),
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
        _check_prefix(tickers.values)
        if condition.values.len() != self._marks.count:
            self._marks = _Marks.of(condition.values, self._policy)
        marks = self._marks
        moment, price, size, exchange = (batch.plain(n).values for n in ("sip_timestamp", "price", "size", "exchange"))
        terms = self._terms(tickers.values)
        roots = terms.get_column("root")
        is_known = roots.is_not_null().to_numpy() if roots.null_count() else np.ones(roots.len(), np.bool_)
        is_good, met = self._screened(batch, is_known, moment, price, size)
        self._note(batch, is_good, met)
        mark = (condition.codes + np.int32(1)) * np.int32(2)
        if met & _prints.CANCEL:
            is_message = self._has(batch, _prints.CANCEL) & is_good
            mark[self._cancelled(batch, is_good, is_message)] += 1
            is_good &= ~is_message
        by_contract = _by_contract(terms)
        runs = by_contract.get_column("run").to_numpy().astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(tickers.lengths)])
        order = np.empty(batch.rows, np.int64)
        counts = np.empty(runs.size, np.int64)
        rows = _prints.ordered(runs, starts, is_good, moment, price, size, exchange, mark, marks.rank, order, counts)
        if not counts.all():
            by_contract, counts = by_contract[np.flatnonzero(counts)], counts[counts > 0]
        return self._made(batch, by_contract, counts, order[:rows], mark)

    def _screened(
        self, batch: Batch, is_known: NDArray[np.bool_], moment: Any, price: Any, size: Any
    ) -> tuple[NDArray[np.bool_], int]:
        """Which rows can be, and the traits of their conditions."""
        broken = np.empty(batch.rows, np.int8)
        lengths, codes = batch.runs("ticker").lengths, batch.coded("conditions").codes
        when = (self._day, self._hours, self._evening)
        count, met = _prints.screened(lengths, is_known, moment, price, size, codes, self._marks.traits, *when, broken)
        if count:
            for number, rejected in enumerate(self._rejected):
                at = np.flatnonzero(broken == number)
                if at.size:
                    rejected.append(to_frame(batch, RAW, at, self._session))
        return broken == _prints.GOOD, met

    def _has(self, batch: Batch, trait: int) -> NDArray[np.bool_]:
        """Whether the condition of each row has a trait."""
        has: NDArray[np.bool_] = (self._marks.traits & trait != 0)[batch.coded("conditions").codes + 1]
        return has

    def _note(self, batch: Batch, is_good: NDArray[np.bool_], met: int) -> None:
        *of_conditions, skewed = self._notes
        for noted, trait in zip(of_conditions, _NOTED_TRAITS, strict=True):
            if met & trait:
                noted.add(batch, np.flatnonzero(self._has(batch, trait) & is_good), self._session)
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
        of_run = np.searchsorted(np.cumsum(batch.runs("ticker").lengths), at, side="right")
        moment, row = (batch.plain(name).values for name in ("sip_timestamp", ROW))
        text = self._marks.text_rank[batch.coded("conditions").codes[at] + 1]
        takes_first = (is_message & self._has(batch, _prints.CANCEL_OF_OPENING))[at]
        same = (of_run, exchange[at], price[at], size[at])
        taken, unmatched = trades.matched(is_message[at], takes_first, *same, moment[at], text, row[at])
        if unmatched.size:
            self._unmatched.append(to_frame(batch, RAW, at[unmatched], self._session))
        return at[taken]

    def _made(
        self, batch: Batch, contracts: pl.DataFrame, counts: NDArray[np.int64], order: NDArray[np.int64], mark: NDArray[np.int32]
    ) -> Batch:
        scale = np.rint(contracts.get_column(_MULTIPLIER).to_numpy() * _prints.TEN_THOUSANDTHS).astype(np.int64)
        read: Any = (*(batch.plain(name).values for name in ("sip_timestamp", "price", "size", "exchange")), mark)
        moment, size, exchange = (np.empty(order.size, np.int64) for _ in range(3))
        price, premium = (np.empty(order.size) for _ in range(2))
        marks, condition = (np.empty(order.size, np.int32) for _ in range(2))
        made = (moment, price, size, exchange, marks, condition, premium)
        if _prints.in_order(order, counts, scale, read, *made):
            for i in np.flatnonzero(np.isnan(premium)):
                of = int(scale[np.searchsorted(np.cumsum(counts), i, side="right")])
                premium[i] = int(np.rint(price[i] * 1e4)) * int(size[i]) * of // _prints.TEN_THOUSANDTHS / 1e4
        ts = Plain(moment)
        columns: dict[str, BatchColumn] = {name: Runs(counts, contracts.get_column(name)) for name in _CONTRACT}
        columns |= {name: Coded(marks, values) for name, values in self._marks.columns.items()}
        columns |= {
            "ts_utc": ts,
            "price": Plain(price),
            "size": Plain(size),
            "premium_usd": Plain(premium),
            "exchange": Plain(exchange),
            "conditions": Coded(condition, batch.coded("conditions").values),
            KNOWN_AT: ts,
        }
        return Batch(order.size, columns)
