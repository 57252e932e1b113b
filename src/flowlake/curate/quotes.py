"""The last quote of each contract at or before the close.

An absent side (0 in the files) is null, and so is its size. A contract with no quote on either side keeps its row, both sides
null: that nobody quotes it is a fact, and leaving it out would read as "not in the file". A crossed quote is left out, not
replaced by an older one. Index options trade until 16:15; the quote is still that of the session's close, so that every
contract of the table is compared with its underlying at one moment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import partial

import polars as pl

from flowlake.core.sessions import close_utc
from flowlake.curate import snapshots
from flowlake.curate.contracts import NOT_IN_MASTER, SNAPSHOT_RULES
from flowlake.curate.screening import RowRule, Subject, is_not_negative, is_positive, one_per_key, screen, subject
from flowlake.curate.symbols import contract_of_ticker
from flowlake.curate.timestamps import as_utc, nanoseconds, on_session_date
from flowlake.curate.vendors import QUOTE_CHAINS, QUOTE_STREAMS, Translate
from flowlake.datasets.curated import OPTION_QUOTES_EOD
from flowlake.datasets.model import UTC_NS, Finding, Inputs, Output

QUOTES = "massive_option_quotes"
_MASTER = ("contract", "underlying", "root", "expiry", "right", "strike")
_CORRECTED_FILE = "ask the vendor for a corrected file; it is taken up when the object changes"
_Curated = tuple[pl.DataFrame, list[Finding]]


def option_quotes_eod(inputs: Inputs, session: date) -> Output:
    """Required input: contracts. Optional inputs: cboe_snapshot, massive_option_quotes, `vendors.QUOTE_STREAMS` and
    `vendors.QUOTE_CHAINS`."""
    sources: dict[str, Callable[[pl.DataFrame, pl.DataFrame, date], _Curated]] = {
        snapshots.SOURCE: _from_snapshot,
        QUOTES: _from_quotes,
        **{source: partial(_from_stream, source, translate) for source, translate in QUOTE_STREAMS.items()},
        **{source: partial(_from_chain, source, translate) for source, translate in QUOTE_CHAINS.items()},
    }
    master = inputs["contracts"].select(_MASTER)
    columns = {column.name: column.dtype for column in OPTION_QUOTES_EOD.columns}
    tables = [pl.DataFrame(schema=columns)]
    findings: list[Finding] = []
    for source, curate in sources.items():
        if source in inputs:
            table, found = curate(inputs[source], master, session)
            tables.append(table.with_columns(pl.lit(source).alias("source")).select(*columns).cast(columns))  # type: ignore[arg-type]
            findings += found
    return Output({OPTION_QUOTES_EOD.name: pl.concat(tables)}, tuple(findings))


def _from_snapshot(raw: pl.DataFrame, master: pl.DataFrame, session: date) -> _Curated:
    about = subject(raw, OPTION_QUOTES_EOD.name, snapshots.SOURCE, session)
    rooted = snapshots.with_contracts(raw, session).with_columns(captured_utc=_captured())
    kept, rejected = screen(rooted, about, (*SNAPSHOT_RULES, *_quote_rules("bid", "ask")))
    distinct, repeated = one_per_key(kept, about, ["contract"], ["bid", "ask", "spot", "iv", "delta", "gamma", "captured_utc"])
    close = pl.lit(close_utc(session), dtype=UTC_NS)
    table = (
        distinct.drop("underlying", "root", "expiry", "right", "strike")
        .join(master, on="contract", how="inner")
        .with_columns(
            ts_utc=pl.min_horizontal("captured_utc", close),
            bid=_above_zero("bid"),
            ask=_above_zero("ask"),
            bid_size=pl.lit(None),
            ask_size=pl.lit(None),
            spot=_above_zero("spot"),
            vendor_iv=_above_zero("iv"),
            vendor_delta=pl.col("delta"),
            vendor_gamma=pl.col("gamma"),
        )
    )
    return table, [*rejected, *repeated, *_snapshot_notes(rooted, about, session)]


def _captured() -> pl.Expr:
    """The capture time, which the files state in UTC without saying so: a capture of 12:50 shows the spot of the evening before."""
    return pl.col("captured_at").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ns", time_zone="UTC", strict=False)


def _snapshot_notes(rooted: pl.DataFrame, about: Subject, session: date) -> list[Finding]:
    findings = []
    shared = rooted.filter(pl.col("root_is_shared") & pl.col("contract").is_not_null())
    if shared.height:
        findings.append(
            about.note(
                "root_inferred",
                shared,
                "the same expiry, right and strike appears under two roots; the order of the file told them apart",
                "filter on root_is_inferred where the difference between the roots matters",
            )
        )
    early = rooted.filter(pl.col("captured_utc") < pl.lit(close_utc(session), dtype=UTC_NS))
    if early.height:
        findings.append(
            about.note(
                "captured_before_close",
                early,
                "the snapshot was captured before the close, so its quotes and spot are older than the session's end",
                "compare ts_utc with the close before relying on these quotes",
            )
        )
    return findings


def _from_quotes(raw: pl.DataFrame, master: pl.DataFrame, session: date) -> _Curated:
    absent = pl.lit(None, dtype=pl.Float64)
    full = raw.with_columns(spot=absent, vendor_iv=absent, vendor_delta=absent, vendor_gamma=absent)
    return _last_quotes(full, subject(raw, OPTION_QUOTES_EOD.name, QUOTES, session), master, session)


def _from_stream(source: str, translate: Translate, raw: pl.DataFrame, master: pl.DataFrame, session: date) -> _Curated:
    full = translate(raw, session).with_columns(sequence_number=pl.lit(None, dtype=pl.Int64))
    return _last_quotes(full, subject(full, OPTION_QUOTES_EOD.name, source, session), master, session)


def _from_chain(source: str, translate: Translate, raw: pl.DataFrame, master: pl.DataFrame, session: date) -> _Curated:
    """A chain says each contract once; rows that contradict each other are all left out."""
    full = translate(raw, session).with_columns(sequence_number=pl.lit(None, dtype=pl.Int64))
    about = subject(full, OPTION_QUOTES_EOD.name, source, session)
    values = [name for name in full.columns if name not in ("ticker", "row", "sequence_number")]
    distinct, repeated = one_per_key(full, about, ["ticker"], values)
    table, found = _last_quotes(distinct, about, master, session)
    return table, repeated + found


def _last_quotes(quotes: pl.DataFrame, about: Subject, master: pl.DataFrame, session: date) -> _Curated:
    """Of each contract the last quote at or before the close."""
    order = ["sip_timestamp", "sequence_number", "row"]  # that of `datasets.sides.QUOTE_SOURCES`, by which quotes were kept
    last = (
        quotes.filter(pl.col("sip_timestamp") <= nanoseconds(close_utc(session)))
        .sort("ticker", *order, nulls_last=False)
        .unique(subset="ticker", keep="last", maintain_order=True)
        .with_columns(contract=contract_of_ticker())
        .join(master, on="contract", how="left")
    )
    older = RowRule(
        "outside_session_date",
        ~on_session_date("sip_timestamp", session),
        "the contract's last quote is of an earlier date",
        "check that the file belongs to this session; ask the vendor for a corrected file",
    )
    kept, rejected = screen(last, about, (NOT_IN_MASTER, older, *_quote_rules("bid_price", "ask_price")))
    table = kept.with_columns(
        ts_utc=as_utc("sip_timestamp"),
        bid=_above_zero("bid_price"),
        ask=_above_zero("ask_price"),
        bid_size=pl.when(pl.col("bid_price") > 0).then("bid_size"),
        ask_size=pl.when(pl.col("ask_price") > 0).then("ask_size"),
        spot=_above_zero("spot"),
        vendor_iv=_above_zero("vendor_iv"),
        root_is_inferred=pl.lit(False),
    )
    return table, rejected


def _quote_rules(bid: str, ask: str) -> tuple[RowRule, ...]:
    return (
        RowRule("price_negative", ~(is_not_negative(bid) & is_not_negative(ask)), "a price is below 0", _CORRECTED_FILE),
        RowRule(
            "crossed_quote",
            (pl.col(bid) > pl.col(ask)) & (pl.col(ask) > 0),
            "the bid is above the ask",
            "nothing to do for a few; many point to a broken capture",
        ),
    )


def _above_zero(name: str) -> pl.Expr:
    return pl.when(is_positive(name)).then(name)
