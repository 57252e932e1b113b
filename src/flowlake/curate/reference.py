"""Corporate actions and interest rates, the house file first, public Lean files where it has nothing; and sectors."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions
from flowlake.curate.screening import RowRule, Subject, is_not_negative, is_positive, one_per_key, screen, subject
from flowlake.datasets.curated import CORPORATE_ACTIONS, RATES, SECTORS
from flowlake.datasets.model import KNOWN_AT, UTC_NS, Finding, Inputs, Output

ACTION_SOURCES = ("corporate_actions_file", "lean_events")
"""In order of precedence."""
HOUSE_RATES = "rates_file"
LEAN_RATE = "lean_interest_rate"
POLICY_RATE_TENOR_DAYS = 1
MAX_RATE_AGE_DAYS = {HOUSE_RATES: 10, LEAN_RATE: 366}
"""Calendar days. A curve is of every session; a policy rate has a row per change, which seldom stays away for a year."""
_EVENT = ("underlying", "ex_date", "kind")
_TERMS = ("ratio", "cash_amount_usd", "new_symbol", "announced_at_utc")
_DIVIDENDS = ("cash_dividend", "special_dividend")
_CORRECT_FILE = "correct the row in the file; it is taken up when the object changes"


def corporate_actions(inputs: Inputs, session: date) -> Output:
    """Optional inputs: corporate_actions_file, lean_events. Each row keeps the `known_at_utc` that its file gave it."""
    columns = CORPORATE_ACTIONS.polars_schema()
    merged = pl.DataFrame(schema=columns)
    findings: list[Finding] = []
    for source in ACTION_SOURCES:
        if source not in inputs:
            continue
        raw = inputs[source]
        about = subject(raw, CORPORATE_ACTIONS.name, source, session)
        kept, rejected = screen(raw, about, _ACTION_RULES)
        events, repeated = one_per_key(kept, about, _EVENT, _TERMS)
        findings += [*rejected, *repeated]
        events = events.with_columns(source=pl.lit(source)).select(*columns).cast(columns)  # type: ignore[arg-type]
        differing = _differing(merged, events)
        if differing.height:
            findings.append(
                about.note(
                    "sources_disagree",
                    differing,
                    "the house file has other terms for the same event; the house file is used",
                    "check these events in reference/corporate_actions.csv",
                )
            )
        merged = pl.concat([merged, events.join(merged, on=_EVENT, how="anti")])
    return Output({CORPORATE_ACTIONS.name: merged}, tuple(findings))


def rates(inputs: Inputs, session: date) -> Output:
    """Optional inputs: rates_file (continuously compounded), lean_interest_rate (percent a year, compounded to ln(1 + r))."""
    columns = {column.name: column.dtype for column in RATES.columns}
    for source in (HOUSE_RATES, LEAN_RATE):
        raw = inputs.get(source)
        if raw is None or not raw.height:
            continue
        about = subject(raw, RATES.name, source, session)
        newest = raw.filter(pl.col("date") == pl.col("date").max())
        old = newest.filter((pl.lit(session) - pl.col("date")).dt.total_days() > MAX_RATE_AGE_DAYS[source])
        if source == LEAN_RATE:
            kept, findings = screen(newest, about, (_ABOVE_MINUS_100,))
            kept = kept.with_columns(
                rate=(pl.col("rate_percent") / 100).log1p(), tenor_days=pl.lit(POLICY_RATE_TENOR_DAYS, dtype=pl.Int64)
            )
        else:
            kept, findings = newest, []
        curve, repeated = one_per_key(kept, about, ["tenor_days"], ["rate"])
        table = curve.with_columns(source=pl.lit(source)).select(*columns)
        return Output({RATES.name: table}, (*findings, *repeated, *_age_note(old, about)))
    return Output({RATES.name: pl.DataFrame(schema=columns)})


def sectors(inputs: Inputs, session: date) -> Output:
    """Optional input: sectors_file.

    What was published during the session is left to the next one: minutes of the session were over before anybody could know.
    """
    raw = inputs.get("sectors_file")
    if raw is None:
        return Output({SECTORS.name: pl.DataFrame(schema=SECTORS.polars_schema())})
    morning = pl.lit(sessions.at_et(session, sessions.DECISION_TIME_ET), dtype=UTC_NS)
    in_force = raw.filter((pl.col(KNOWN_AT) <= morning) & (pl.col("valid_from") <= session))
    newest = in_force.sort("underlying", "valid_from").unique("underlying", keep="last", maintain_order=True)
    return Output({SECTORS.name: newest.select(SECTORS.polars_schema().keys())})


def _age_note(old: pl.DataFrame, about: Subject) -> list[Finding]:
    if not old.height:
        return []
    return [
        about.note(
            "old_rate",
            old,
            f"the newest rate is of {old['date'][0]} and is used all the same",
            "add the session's curve to reference/rates.csv; nothing to do for a policy rate that has not changed since",
        )
    ]


_ABOVE_MINUS_100 = RowRule(
    "rate_impossible",
    ~(pl.col("rate_percent").is_finite() & (pl.col("rate_percent") > -100)),
    "the rate is not above -100 percent",
    _CORRECT_FILE,
)
_ACTION_RULES = (
    RowRule(
        "ratio_not_positive",
        pl.when(pl.col("kind") == "split")
        .then(~is_positive("ratio"))
        .otherwise(pl.col("ratio").is_not_null() & ~is_positive("ratio")),
        "a ratio that is not above 0, or a split without one",
        _CORRECT_FILE,
    ),
    RowRule(
        "cash_amount_invalid",
        pl.when(pl.col("kind").is_in(_DIVIDENDS))
        .then(~is_not_negative("cash_amount_usd"))
        .otherwise(pl.col("cash_amount_usd").is_not_null() & ~is_not_negative("cash_amount_usd")),
        "a cash amount below 0, or a dividend without one",
        _CORRECT_FILE,
    ),
    RowRule(
        "new_symbol_missing",
        (pl.col("kind") == "symbol_change") & (pl.col("new_symbol").fill_null("") == ""),
        "a change of symbol without the new symbol",
        _CORRECT_FILE,
    ),
    RowRule(
        "unknown_kind",
        ~pl.col("kind").is_in(["split", *_DIVIDENDS, "symbol_change"]),
        "no known kind of event",
        _CORRECT_FILE,
    ),
)


def _differing(preferred: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Rows of `events` whose ratio, amount or new symbol differ from the preferred row of the same event."""
    both = events.join(preferred, on=_EVENT, how="inner", suffix="_preferred")
    differs = _apart("ratio") | _apart("cash_amount_usd") | pl.col("new_symbol").ne_missing(pl.col("new_symbol_preferred"))
    return both.filter(differs).select(events.columns)


def _apart(name: str) -> pl.Expr:
    """Beyond the rounding of a factor file: more than one part in a thousand."""
    one, other = pl.col(name), pl.col(f"{name}_preferred")
    return ((one - other).abs() > 1e-3 * other.abs()).fill_null(one.is_null() != other.is_null())
