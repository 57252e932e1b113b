"""The contract master of a session: every contract that its option files name, with terms and the moment it settles."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions as calendar
from flowlake.curate import snapshots
from flowlake.curate.expiries import settlement_session
from flowlake.curate.roots import root_terms
from flowlake.curate.screening import RowRule, Subject, screen
from flowlake.curate.symbols import CONTRACT_FIELDS, parse_tickers
from flowlake.curate.vendors import OF_THE_CLOSE_BEFORE, not_expired
from flowlake.curate.vendors import TICKER_SOURCES as VENDOR_SOURCES
from flowlake.datasets.model import UTC_NS, Finding, Inputs, Output

TICKER_SOURCES = (
    "massive_option_trades",
    "massive_option_minute",
    "massive_option_day",
    "massive_option_quotes",
    "open_interest_file",
    *VENDOR_SOURCES,
)
"""Raw datasets that name contracts by vendor ticker."""

NOT_IN_MASTER = RowRule(
    "impossible_contract",
    pl.col("root").is_null(),
    "the ticker names no possible or no living contract",
    "see the finding of `contracts` for the reason; ask the vendor for a corrected file",
)
"""For rows joined with the contract master by their ticker's contract."""
SNAPSHOT_RULES = (
    RowRule(
        snapshots.IMPOSSIBLE,
        pl.col("problem").eq_missing(pl.lit(snapshots.IMPOSSIBLE)),
        "strike, right or days to expiry name no possible contract",
        "correct or remove the rows in the snapshot",
    ),
    RowRule(
        snapshots.AMBIGUOUS,
        pl.col("problem").eq_missing(pl.lit(snapshots.AMBIGUOUS)),
        "two roots list this date and the order of the file does not tell them apart",
        "provide the snapshot as the exchange writes it: all rows of one root, then all rows of the other",
    ),
)
"""For rows that `snapshots.with_contracts` gave."""


def contracts(inputs: Inputs, session: date) -> Output:
    """Optional inputs: those of `TICKER_SOURCES`, cboe_snapshot, contract_roots_file.

    Rejected: tickers that name no possible contract, contracts that expired before the session, and snapshot rows whose root
    cannot be told.
    """
    seen: list[pl.DataFrame] = [pl.DataFrame(schema=CONTRACT_FIELDS)]
    findings: list[Finding] = []
    for source in TICKER_SOURCES:
        if source in inputs:
            raw = inputs[source]
            parsed, found = _from_tickers(not_expired(raw, session) if source in OF_THE_CLOSE_BEFORE else raw, source, session)
            seen.append(parsed)
            findings += found
    if snapshots.SOURCE in inputs:
        parsed, found = _from_snapshot(inputs[snapshots.SOURCE], session)
        seen.append(parsed)
        findings += found
    master = pl.concat(seen).unique(subset="contract").sort("contract")
    terms = root_terms(master["root"], inputs.get("contract_roots_file"), session)
    findings += _assumed_terms(terms, session)
    table = master.join(terms.drop("is_assumed"), on="root", how="left").join(
        _settlement(master["expiry"]), on="expiry", how="left"
    )
    opens_settle = pl.col("settlement") == "am"
    return Output(
        {
            "contracts": table.with_columns(
                last_trading_session=pl.when(opens_settle).then("session_before").otherwise("settlement_session"),
                expires_utc=pl.when(opens_settle).then("settlement_open_utc").otherwise("settlement_close_utc"),
            )
        },
        tuple(findings),
    )


def _from_tickers(raw: pl.DataFrame, source: str, session: date) -> tuple[pl.DataFrame, list[Finding]]:
    parsed = parse_tickers(raw["ticker"])
    about = Subject("contracts", source, session, ("ticker", "problem"))
    kept, findings = screen(
        parsed,
        about,
        (
            RowRule(
                "impossible_contract",
                pl.col("problem").is_not_null(),
                "the ticker names no possible contract (see `problem`)",
                "ask the vendor for a corrected file; the rows of these tickers are left out everywhere",
            ),
            RowRule(
                "expired_contract",
                pl.col("expiry") < session,
                "the contract expired before the session",
                "check that the file belongs to this session; the rows of these tickers are left out everywhere",
            ),
        ),
    )
    return kept.select(*CONTRACT_FIELDS), findings


def _from_snapshot(raw: pl.DataFrame, session: date) -> tuple[pl.DataFrame, list[Finding]]:
    about = Subject("contracts", snapshots.SOURCE, session, (*raw.columns, "expiry"))
    kept, findings = screen(snapshots.with_contracts(raw, session), about, SNAPSHOT_RULES)
    return kept.with_columns(strike=(pl.col("strike_thousandths") / 1000).round(3)).select(*CONTRACT_FIELDS), findings


def _assumed_terms(terms: pl.DataFrame, session: date) -> list[Finding]:
    assumed = terms.filter("is_assumed")
    if not assumed.height:
        return []
    about = Subject("contracts", "the option files", session, ("root", "underlying", "multiplier"))
    return [
        about.note(
            "assumed_deliverable",
            assumed,
            "an adjusted root has no entry in contract_roots.csv; its deliverable is taken as 100 shares",
            "add the roots that matter to reference/contract_roots.csv with their underlying and multiplier",
        )
    ]


def _settlement(expiries: pl.Series) -> pl.DataFrame:
    """One row per distinct expiry: the settlement session, its open and close, and the session before it."""
    distinct = expiries.unique().sort().to_list()
    settled = [settlement_session(expiry) for expiry in distinct]
    return pl.DataFrame(
        {
            "expiry": distinct,
            "settlement_session": settled,
            "session_before": [calendar.previous_session(s) for s in settled],
            "settlement_open_utc": [calendar.open_utc(s) for s in settled],
            "settlement_close_utc": [calendar.close_utc(s) for s in settled],
        },
        schema={
            "expiry": pl.Date(),
            "settlement_session": pl.Date(),
            "session_before": pl.Date(),
            "settlement_open_utc": UTC_NS,
            "settlement_close_utc": UTC_NS,
        },
    )
