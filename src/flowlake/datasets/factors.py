"""Derived layer, factors: implied volatility per contract, daily factors per underlying, and the panel that scores them.

Every number is known at D(t), 09:00 New York on the session after t. The constants here are part of what the columns mean, so
the steps import them from this module and the documentation states them.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from flowlake.datasets.checks import Between, Check, NotAbove, OneOf
from flowlake.datasets.curated import CONTRACT_COLUMNS, CONTRACT_KEY, UNDERLYING
from flowlake.datasets.flow_factors import FLOW_FEATURES, PANEL_FLOW
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAtDecision, Layer
from flowlake.datasets.scored import MIN_HISTORY, OTM_DISTANCE, Scored

HISTORY_SESSIONS = 253
"""Sessions of daily factors that the panel reads, the scored one included."""
REALIZED_RETURNS = 20
"""Consecutive daily returns in a realised volatility."""
CLOSE_SESSIONS = 300
"""Sessions of daily stock bars that the panel reads: the sample of the forecast of volatility."""
HAR_LAGS = (1, 5, 22)
"""Sessions of returns whose volatility the forecast rests on: a day, a week, a month."""
HAR_HORIZON = 21
"""Sessions that the forecast looks ahead."""
HAR_MIN_RETURNS = 120
"""Returns without a gap that a forecast needs; with gaps, as many sessions to learn from as these would give."""
IV_CHANGE_SESSIONS = 21
"""Sessions over which changes of volatility are measured: a month."""
SHORT_DAYS = 21
"""Calendar days to expiry up to which a contract is short-dated."""
SWEPT_DAYS = 45
"""The same for the sweep factors, which look for one buyer, not for the crowd: who must be right in time buys some time."""
SQUEEZE_REACH = 0.10
"""Log-distance from spot over which a call's say in `squeeze_risk` falls to 1/e."""
TARGET_DAYS = 30
"""Constant maturity of the volatility factors."""
MATURITY_DAYS = (7, 90)
"""Calendar days to expiry between which an expiry may serve the constant maturity."""
NEAREST_DAYS = 5
"""An expiry this close to the constant maturity may stand for it where no two expiries bracket it."""
MIN_SMILE = 3
"""Out-of-the-money contracts with a volatility that an expiry needs to give a smile."""
AT_FORWARD_CONTRACTS = 3
"""Contracts of one right near the forward that an expiry needs for a volatility of that right at the forward."""
IV_PAIRS = 3
"""Pairs of a call and a put that a volatility spread needs."""
SMIRK_DAYS = (10, 60)
"""Calendar days to expiry between which an expiry may give a smirk."""
SMIRK_PUT = (0.80, 0.95)
SMIRK_CALL = (0.95, 1.05)
"""Strike over spot of the smirk's two contracts; the put's is the nearest to the upper end, the call's the nearest to 1."""
SLOPE_DAYS = (30, 90)
"""Tenors of `iv_surface` whose difference is `term_slope`."""
MOVE_DAYS = (7, 14, 30)
"""Tenors of `iv_surface` of which the first with a volatility gives `implied_move_1d`."""
FUNDING_SPREAD = 0.005
"""What financing costs more, and lending earns less, than the curve, per year: nobody trades parity at a Treasury's yield."""
CHAIN_QUOTES = 3
"""Quotes that a chain (root, expiry and right) needs to be looked through for verticals and butterflies."""

PRICE_SOURCES = ("quote_mid", "trade", "minute_bar", "day_bar")
SPOT_SOURCES = ("equity_bars_1m", "equity_bars_1d", "vendor_snapshot", "parity_forward")
FORWARD_SOURCES = ("parity", "spot_carry")
RATE_SOURCES = ("rates", "none")
QUALITIES = (
    "ok",
    "no_price",
    "crossed",
    "one_sided",
    "wide_quote",
    "expired",
    "adjusted_deliverable",
    "no_spot",
    "american_early_exercise",
    "below_intrinsic",
    "above_maximum",
    "undetermined",
)
"""`ok`, or why `iv` is null. In order of precedence after `ok`."""

_POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
_SHARE: tuple[Check, ...] = (Between(0, 1),)
_KNOWN = "Known at 09:00 New York on the next session."


def _per_share(name: str, doc: str, *, checks: tuple[Check, ...] = _POSITIVE) -> Column:
    return Column(name, pl.Float64(), doc, unit="USD per share", nullable=True, checks=checks, adjust=Adjust.PRICE)


def _text(name: str, doc: str, values: tuple[str, ...], *, nullable: bool = True) -> Column:
    return Column(name, pl.String(), doc, nullable=nullable, checks=(OneOf(values),))


OPTION_IV = Dataset(
    name="option_iv",
    layer=Layer.DERIVED,
    doc=(
        "Implied volatility and greeks of each contract at the moment of its last price: by Black's formula on the forward, or, "
        "for American contracts, with early exercise and the cash dividends ahead on the same forward."
    ),
    grain=("contract",),
    columns=(
        *CONTRACT_COLUMNS,
        Column("exercise", pl.String(), "Exercise style.", checks=(OneOf(("american", "european")),)),
        Column(
            "iv",
            pl.Float64(),
            "Implied volatility, annual, of `price` on `forward`, with early exercise where `exercise` is american. "
            "Needs a price, a forward and time to expiry.",
            unit="per 1.00",
            nullable=True,
            checks=_POSITIVE,
        ),
        _per_share("spot", "Underlying at `ts_utc`."),
        _text(
            "spot_source",
            "Minute bar, extended hours too, that ended at most 15 minutes before; the day's close for a price at the close; "
            "the spot in the vendor's quote file; or implied by put-call parity (then discounted forward plus known "
            "dividends).",
            SPOT_SOURCES,
        ),
        _per_share("forward", "Forward of the underlying for the expiry."),
        _text(
            "forward_source",
            "parity: implied by the quotes, or by calls and puts that traded in the same minute, of the same root and expiry; "
            "spot_carry: spot less the present value of known ordinary dividends, grown at the interest rate.",
            FORWARD_SOURCES,
        ),
        Column("discount", pl.Float64(), "Present value of 1 USD at expiry.", nullable=True, checks=(Between(0, above=True),)),
        _text(
            "rate_source",
            "rates: the curve, linear in days and flat outside; none: there is no curve, the rate is 0.",
            RATE_SOURCES,
        ),
        Column(
            "years",
            pl.Float64(),
            "Actual seconds from `ts_utc` to the contract's `expires_utc` over 365 days.",
            unit="years",
            nullable=True,
        ),
        _per_share("price", "Price that `iv` explains."),
        _text(
            "price_source",
            "Midpoint of a two-sided quote; else the last eligible trade (the median price where several share the last "
            "moment); else the close of the last minute bar; else the close of the day bar.",
            PRICE_SOURCES,
        ),
        Column(
            "ts_utc",
            UTC_NS,
            "Moment of the price: of the quote or trade, the end of the minute bar, the session's close for a day bar.",
            nullable=True,
        ),
        Column(
            "delta",
            pl.Float64(),
            "Change of price per 1 USD of spot. A little beyond 1 where the forward lies above the spot carried at the rate.",
            nullable=True,
            checks=(Between(-1.5, 1.5),),
        ),
        Column(
            "gamma",
            pl.Float64(),
            "Change of delta per 1 USD of spot.",
            unit="per USD",
            nullable=True,
            checks=_NOT_NEGATIVE,
            adjust=Adjust.INVERSE_PRICE,
        ),
        _per_share("vega", "Change of price per 1.00 of volatility.", checks=_NOT_NEGATIVE),
        _per_share("theta", "Change of price per year of passing time, usually negative.", checks=()),
        Column(
            "vendor_iv",
            pl.Float64(),
            "Implied volatility in the vendor's quote file, for comparison; never used.",
            unit="per 1.00",
            nullable=True,
            checks=_POSITIVE,
        ),
        Column(
            "volume",
            pl.Int64(),
            "Contracts traded: of eligible trades, else of day bars, else of minute bars; null where the session has none of "
            "these files.",
            unit="contracts",
            nullable=True,
            checks=_NOT_NEGATIVE,
            adjust=Adjust.CONTRACTS,
        ),
        _text("quality", "ok, or why `iv` is null.", QUALITIES, nullable=False),
    ),
    sort_by=CONTRACT_KEY,
    known=KnownAtDecision(),
)


def _factor(
    name: str,
    formula: str,
    needs: str,
    unit: str = "",
    *,
    dtype: pl.DataType | None = None,
    checks: tuple[Check, ...] = (),
    adjust: Adjust | None = None,
    nullable: bool = True,
) -> Column:
    """A factor's documentation always says formula, unit, knowledge time and minimum sample."""
    doc = f"{formula} {_KNOWN} Needs {needs}."
    return Column(name, dtype or pl.Float64(), doc, unit=unit, nullable=nullable, checks=checks, adjust=adjust)


def _contracts(name: str, formula: str, needs: str = "one traded contract") -> Column:
    return _factor(name, formula, needs, "contracts", dtype=pl.Int64(), checks=_NOT_NEGATIVE, adjust=Adjust.CONTRACTS)


def _premium(name: str, formula: str, needs: str = "one traded contract") -> Column:
    return _factor(name, formula, needs, "USD", checks=_NOT_NEGATIVE)


_SHORT_OTM = (
    f"expire within {SHORT_DAYS} calendar days and are out of the money by at least {OTM_DISTANCE:.0%} of spot in logarithms, "
    "spot being that of the contract's last price, else the spot at the close"
)
_TENOR = (
    f"two expiries {MATURITY_DAYS[0]} to {MATURITY_DAYS[1]} days out that bracket {TARGET_DAYS} days, or one within "
    f"{NEAREST_DAYS} days of it; each with {MIN_SMILE} out-of-the-money contracts that have a volatility"
)

_SPOT = (
    _factor(
        "spot_close",
        "Underlying at the close: the daily stock bar, else the last regular minute bar, else the spot of the "
        "option price nearest to the close, both within 30 minutes of it.",
        "a stock bar, or a spot that an option price gives",
        "USD per share",
        checks=_POSITIVE,
        adjust=Adjust.PRICE,
    ),
    _text("spot_source", "Where `spot_close` comes from.", SPOT_SOURCES),
)
_VOLUME = (
    _contracts("option_volume", "Sum of contracts traded: eligible trades, else day bars, else minute bars."),
    _contracts("call_volume", "Sum of calls traded."),
    _contracts("put_volume", "Sum of puts traded."),
)
_PREMIUM = (
    _premium(
        "premium_usd",
        "Sum of price x size x multiplier over eligible trades, exact to 1/10,000 USD; where the session has no trades file, "
        "bar close x volume x multiplier, of minute bars else of day bars, stands in.",
    ),
    _premium("call_premium_usd", "The part of `premium_usd` in calls."),
    _premium("put_premium_usd", "The part of `premium_usd` in puts."),
)
_RATIOS = (
    _factor("put_call_volume_ratio", "Put volume / call volume.", "one call traded", "puts per call", checks=_NOT_NEGATIVE),
    _factor(
        "option_to_stock_volume",
        "Contracts x multiplier / shares traded.",
        "stock bars with volume",
        "shares per share",
        checks=_NOT_NEGATIVE,
    ),
)
_STOCK_VOLUME = _factor(
    "stock_volume",
    "Shares traded: the daily stock bar, else regular minute bars.",
    "a stock bar",
    "shares",
    checks=_NOT_NEGATIVE,
    adjust=Adjust.SHARES,
)
_SHORT_OTM_FLOW = (
    _contracts("otm_short_call_volume", f"Calls traded that {_SHORT_OTM}.", "a spot"),
    _contracts("otm_short_put_volume", f"Puts traded that {_SHORT_OTM}.", "a spot"),
    _premium("otm_short_call_premium_usd", f"Premium of calls that {_SHORT_OTM}.", "a spot"),
    _premium("otm_short_put_premium_usd", f"Premium of puts that {_SHORT_OTM}.", "a spot"),
)
_SWEEP = "single-leg intermarket sweep prints that are on time"
_SWEPT_OTM = (
    f"expire within {SWEPT_DAYS} calendar days and are out of the money by at least {OTM_DISTANCE:.0%} of spot in logarithms"
)
_SWEEPS = (
    _contracts("swept_otm_call_volume", f"Contracts of {_SWEEP}, in calls that {_SWEPT_OTM}.", "a trades file and a spot"),
    _contracts("swept_otm_put_volume", f"Contracts of {_SWEEP}, in puts that {_SWEPT_OTM}.", "a trades file and a spot"),
    _contracts(
        "largest_contract_sweep_volume",
        f"Most contracts of {_SWEEP} in one contract, of those that {_SWEPT_OTM}; 0 where there are none.",
        "a trades file and a spot",
    ),
    *(
        _contracts(
            f"swept_opening_{side}_volume",
            f"Sum over {side}s that {_SWEPT_OTM}, of the lesser of the contracts of {_SWEEP} and the rise of open interest in the "
            "same contract, 0 where it fell or where it is larger than the volume: at most so much of what was swept was opened.",
            "a trades file, a spot, and open interest of this session and the one before",
        )
        for side in ("call", "put")
    ),
)
_PRINTS = (
    _factor(
        "iso_share", "Volume of intermarket sweep prints / option volume.", "one eligible trade", "share of volume", checks=_SHARE
    ),
    _factor(
        "multi_leg_share",
        "Volume of multi-leg and stock-tied prints / option volume.",
        "one eligible trade",
        "share of volume",
        checks=_SHARE,
    ),
    _factor(
        "auction_share",
        "Volume of single-leg auction prints / option volume.",
        "one eligible trade",
        "share of volume",
        checks=_SHARE,
    ),
    _premium("largest_print_premium_usd", "Largest premium of one eligible print.", "one eligible trade"),
    _factor(
        "contracts_traded",
        "Number of different contracts that traded.",
        "one traded contract",
        "contract symbols",
        dtype=pl.Int64(),
        checks=_NOT_NEGATIVE,
    ),
)
_VOLATILITY = (
    _factor(
        "atm_iv_30d",
        f"At-the-forward volatility at {TARGET_DAYS} days: per expiry the out-of-the-money smile, linear in log-strike between "
        "the two contracts around the forward (each within 0.15 of it); then linear in total variance between expiries.",
        _TENOR,
        "per 1.00",
        checks=_POSITIVE,
    ),
    _factor(
        "skew_25d",
        f"Volatility of the 25-delta put less that of the 25-delta call at {TARGET_DAYS} days: per expiry from the "
        "out-of-the-money smile, linear in log-strike; then linear in time between expiries.",
        _TENOR + ", on both sides of 0.25 in delta",
        "per 1.00",
    ),
)
_CARRY = "(spot - present value of known ordinary dividends) / discount, with early exercise for American contracts"
_AT_FORWARD = (
    f"rates, and two expiries {MATURITY_DAYS[0]} to {MATURITY_DAYS[1]} days out that bracket {TARGET_DAYS} days, or one within "
    f"{NEAREST_DAYS} days of it; each with {AT_FORWARD_CONTRACTS} of them within 0.15 of the forward in log-strike, on both sides"
)
_SKEWS = (
    _factor(
        "call_put_iv_spread",
        "Volatility spread of Cremers and Weinbaum (2010): mean of call less put volatility over pairs of one root, expiry and "
        f"strike, weighted by the pair's mean open interest. The volatilities are those on {_CARRY}: on the forward that parity "
        "implies the spread would be zero. The spot of a quote of the last minute is the close. Positive where calls are dear.",
        f"rates, and {IV_PAIRS} pairs with a volatility, open interest, and a spot that parity did not give",
        "per 1.00",
    ),
    _factor(
        "smirk",
        f"Xing, Zhang and Zhao (2010): volatility of the put whose strike over spot is the highest from {SMIRK_PUT[0]:.2f} to "
        f"{SMIRK_PUT[1]:.2f}, less that of the call whose strike over spot is nearest to 1, from {SMIRK_CALL[0]:.2f} to "
        f"{SMIRK_CALL[1]:.2f}; of the root and expiry nearest to {TARGET_DAYS} days that has both. Volatilities of `option_iv`.",
        f"an expiry {SMIRK_DAYS[0]} to {SMIRK_DAYS[1]} days out with both",
        "per 1.00",
    ),
    *(
        _factor(
            f"atm_{side}_iv_30d",
            f"At-the-forward volatility at {TARGET_DAYS} days of {side}s alone, in and out of the money, otherwise as atm_iv_30d; "
            f"forward and volatilities on {_CARRY}. For An, Ang, Bali and Cakici (2014).",
            _AT_FORWARD,
            "per 1.00",
            checks=_POSITIVE,
        )
        for side in ("call", "put")
    ),
    _factor(
        "term_slope",
        f"atm_iv at {SLOPE_DAYS[1]} days less atm_iv at {SLOPE_DAYS[0]} days, from `iv_surface`.",
        "both of them",
        "per 1.00",
    ),
    _factor("butterfly_25d_30d", "butterfly_25d at 30 days, from `iv_surface`.", "that node", "per 1.00"),
    _factor("skew_10d_30d", "skew_10d at 30 days, from `iv_surface`.", "that node", "per 1.00"),
    _factor(
        "implied_move_1d",
        "Expected absolute move over one session: atm_iv x sqrt(2 / pi) x sqrt(1 / 252), atm_iv being that of the shortest tenor "
        f"of `iv_surface` with one, of {', '.join(map(str, MOVE_DAYS))} days.",
        "one of these tenors",
        "share of spot",
        checks=_POSITIVE,
    ),
    _factor(
        "surface_residual",
        "Misfit of the market to the surface: fit_rmse at 30 days, from `iv_surface`.",
        "that node",
        "per 1.00",
        checks=_NOT_NEGATIVE,
    ),
)
_ON_QUOTES = (
    "Largest over the last quotes of one source, selling at bids and buying at asks, before costs; 0 where nothing contradicts "
    "itself. Crossed quotes, adjusted deliverables and contracts that end with the session do not count."
)
_MISPRICING = (
    _factor(
        "parity_violation_bps",
        "Put-call parity, severity over spot_close. American: S - PV(dividends) - K <= C - P <= S - K D, at the underlying of "
        "the pair's later quote. European: C - P = D (F - K), F the expiry's forward in `option_iv`: strikes against each other. "
        f"Less {FUNDING_SPREAD:.1%} a year on what is financed, K and |F - K|. " + _ON_QUOTES,
        "rates, and a call and a put of one strike; of American contracts with a spot that parity did not give",
        "basis points of spot",
        checks=_NOT_NEGATIVE,
    ),
    _factor(
        "vertical_violation_bps",
        "Vertical spreads of neighbouring strikes, severity over spot_close: worth less than 0, or more than the distance of the "
        "strikes, which European contracts discount. " + _ON_QUOTES,
        f"{CHAIN_QUOTES} quotes of one root, expiry and right",
        "basis points of spot",
        checks=_NOT_NEGATIVE,
    ),
    _factor(
        "butterfly_violation_bps",
        "Butterflies of three neighbouring strikes, severity over spot_close: the middle worth more than its neighbours' mix. "
        + _ON_QUOTES,
        f"{CHAIN_QUOTES} quotes of one root, expiry and right",
        "basis points of spot",
        checks=_NOT_NEGATIVE,
    ),
    _factor(
        "calendar_violation_bps",
        "Calendar spreads, severity over spot_close. American: the next expiry of one root, right and strike worth less. European: "
        "the next expiry of the root at the nearest K/F that covers, worth less over D F. " + _ON_QUOTES,
        "quotes of two expiries of one root that can be compared; of European ones rates",
        "basis points of spot",
        checks=_NOT_NEGATIVE,
    ),
    _factor(
        "violations",
        "Pairs, verticals, butterflies and calendars with a positive severity, counted.",
        "one of the four checks",
        "lines",
        dtype=pl.Int64(),
        checks=_NOT_NEGATIVE,
    ),
)
_EXPOSURE = (
    _factor(
        "gamma_exposure_usd",
        "Sum of sign x gamma x open interest x multiplier x spot^2 x 0.01, the naive dealer convention: long calls (+1), short "
        "puts (-1). Gamma uses the contract's volatility, else its expiry's smile, with early exercise for American contracts. "
        "Contracts that outlive the session.",
        "open interest, a spot, and a smile for expiries that hold at least half of the open interest",
        "USD per 1 % move of the underlying",
    ),
    _factor(
        "vanna_exposure_usd",
        "Sum of sign x vanna x open interest x multiplier x spot x 0.01, otherwise as gamma_exposure_usd.",
        "what gamma_exposure_usd needs",
        "USD per volatility point",
    ),
    _factor(
        "charm_exposure_usd",
        "Sum of sign x charm x open interest x multiplier x spot / 365, otherwise as gamma_exposure_usd.",
        "what gamma_exposure_usd needs",
        "USD per calendar day",
    ),
    _factor(
        "gamma_flip",
        "Price of the underlying at which gamma_exposure_usd, repriced by Black and Scholes with each contract's volatility held, "
        "changes its sign; of several between half and one and a half times the spot the nearest in logarithms.",
        "what gamma_exposure_usd needs, and a change of sign",
        "USD per share",
        checks=_POSITIVE,
        adjust=Adjust.PRICE,
    ),
    _factor("gamma_flip_distance", "gamma_flip / spot_close - 1.", "a gamma_flip", "share of spot"),
    _factor(
        "gamma_flips",
        "How many such prices there are.",
        "what gamma_exposure_usd needs",
        "prices",
        dtype=pl.Int64(),
        checks=_NOT_NEGATIVE,
    ),
    _factor(
        "max_pain",
        "Strike of the nearest expiry with open interest at which its options together would pay the least; of several the lowest.",
        "open interest",
        "USD per share",
        checks=_POSITIVE,
        adjust=Adjust.PRICE,
    ),
    _factor("max_pain_days", "Calendar days to that expiry.", "open interest", "days", dtype=pl.Int64(), checks=_NOT_NEGATIVE),
    _factor("max_pain_distance", "max_pain / spot_close - 1.", "open interest and a spot", "share of spot"),
    _factor(
        "squeeze_risk",
        "max(0, -gamma_exposure_usd) / (stock_volume x spot_close) x sum over calls that expire within "
        f"{SHORT_DAYS} calendar days, at least {OTM_DISTANCE:.0%} out of the money, of open interest x exp(-ln(strike/spot)/"
        f"{SQUEEZE_REACH}) / all open interest: dealers' forced buying per 1 % rise as a share of a day's volume, times how much "
        "short-dated call interest lies close above.",
        "what gamma_exposure_usd needs, and stock volume",
        "share of daily volume per 1 %",
        checks=_NOT_NEGATIVE,
    ),
    _text("gamma_exposure_oi", "Which open interest it uses: of this session's close, else of its open.", ("close", "open")),
)
_GAMMA_TRADED = _factor(
    "gamma_traded_usd",
    "As gamma_exposure_usd, with the session's volume in place of open interest: the gamma of what was traded. "
    "A figure for buckets without open interest; every trade counts as one position that dealers took on the convention's side.",
    "volume, a spot, and a smile for expiries that hold at least half of the volume",
    "USD per 1 % move of the underlying",
)
_OPEN_INTEREST = (
    _contracts(
        "open_interest_close",
        "Open contracts at the close of this session, of contracts that outlive it.",
        "open interest of this session",
    ),
    _contracts(
        "open_interest_open",
        "Open contracts at the close of the session before, of contracts that outlive this one, so that expiries are no change.",
        "open interest of the session before",
    ),
    _factor(
        "volume_to_open_interest",
        "Volume of contracts that outlive the session / open_interest_open: how often what was open changed hands.",
        "volume, and open interest of the session before",
        "contracts per open contract",
        checks=_NOT_NEGATIVE,
    ),
)
_NOT_AVAILABLE = Column("not_available", pl.List(pl.String()), "Why factors of this row are null: `factor: reason`, sorted.")

DAILY_FACTORS = Dataset(
    name="daily_factors",
    layer=Layer.DERIVED,
    doc="Factors of one underlying and one session, from that session's files alone (open interest: and the one before).",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        *_SPOT,
        *_VOLUME,
        _factor(
            "option_trade_count",
            "Number of eligible trades; of transactions in bars where the session has no trades file.",
            "a trades file, or bars with transactions",
            "trades",
            dtype=pl.Int64(),
            checks=_NOT_NEGATIVE,
        ),
        *_PREMIUM,
        *_RATIOS,
        _STOCK_VOLUME,
        *_SHORT_OTM_FLOW,
        *_SWEEPS,
        *_PRINTS,
        *_VOLATILITY,
        *_SKEWS,
        *_MISPRICING,
        *_EXPOSURE,
        _GAMMA_TRADED,
        *_OPEN_INTEREST,
        _NOT_AVAILABLE,
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    checks=(NotAbove("call_volume", "option_volume"), NotAbove("put_volume", "option_volume")),
)


SCORED = (
    Scored("option_volume", "log1p", 0.05),
    Scored("premium_usd", "log1p", 0.05),
    Scored("put_call_volume_ratio", "log", 0.05),
    Scored("option_to_stock_volume", "log", 0.05),
    Scored("otm_short_call_premium_usd", "log1p", 0.05),
    Scored("otm_short_put_premium_usd", "log1p", 0.05),
    Scored("swept_otm_call_volume", "sqrt", 4.0),
    Scored("swept_otm_put_volume", "sqrt", 4.0),
    Scored("largest_contract_sweep_volume", "sqrt", 4.0),
    Scored("swept_opening_call_volume", "sqrt", 4.0),
    Scored("swept_opening_put_volume", "sqrt", 4.0),
    Scored("repeated_sweep_call_volume", "sqrt", 4.0),
    Scored("repeated_sweep_put_volume", "sqrt", 4.0),
    Scored("repeated_opening_call_volume", "sqrt", 4.0),
    Scored("repeated_opening_put_volume", "sqrt", 4.0),
    Scored("iso_share", "linear", 0.01),
    Scored("largest_print_premium_usd", "log1p", 0.05),
    Scored("atm_iv_30d", "linear", 0.005),
    Scored("skew_25d", "linear", 0.005),
    Scored("gamma_exposure_usd", "linear", 0.01, relative=True),
    Scored("open_interest_change", "linear", 0.01, relative=True),
)
Z_COLUMNS = tuple(scored.column for scored in SCORED)
ENGINE_FEATURES = (*Z_COLUMNS, *FLOW_FEATURES)
"""Columns of the panel that the anomaly engines look at."""


def _scores() -> Iterator[Column]:
    for scored in SCORED:
        yield _factor(
            scored.column, scored.describe(HISTORY_SESSIONS - 1), f"{MIN_HISTORY} past sessions with a value", "robust deviations"
        )


REPEATED = {
    f"repeated_{kind}_{side}_volume": f"{source}_{side}_volume"
    for kind, source in (("sweep", "swept_otm"), ("opening", "swept_opening"))
    for side in ("call", "put")
}
"""Persistence factors of the panel, and the daily factor that each looks at on two sessions."""
PASSED_THROUGH = (
    *_SPOT,
    *_VOLUME,
    *_PREMIUM,
    *_RATIOS,
    _STOCK_VOLUME,
    *_SHORT_OTM_FLOW,
    *_SWEEPS,
    *_PRINTS,
    *_VOLATILITY,
    *_SKEWS,
    *_MISPRICING,
    *_EXPOSURE,
    _GAMMA_TRADED,
    *_OPEN_INTEREST,
)
"""Columns that the panel takes unchanged from the session's `daily_factors`."""


def _realized(name: str, doc: str, bars: int) -> Column:
    return _factor(name, doc, f"{bars} consecutive daily stock bars", "per 1.00", checks=_NOT_NEGATIVE)


_BARS = f"of the daily stock bars of the last {REALIZED_RETURNS} sessions, split-adjusted, annual on 252 sessions"
_VOL_SPREAD = (
    _realized("realized_vol_yz_20d", f"Yang and Zhang's volatility {_BARS}; right with overnight gaps.", REALIZED_RETURNS + 1),
    _realized("realized_vol_parkinson_20d", f"Parkinson's volatility {_BARS}; without overnight gaps.", REALIZED_RETURNS),
    _realized("realized_vol_garman_klass_20d", f"Garman and Klass's volatility {_BARS}; without overnight gaps.", REALIZED_RETURNS),
    _factor("iv_minus_rv_yz", "atm_iv_30d - realized_vol_yz_20d.", f"both of them, so {REALIZED_RETURNS + 1} bars", "per 1.00"),
    _factor(
        "har_forecast_21d",
        f"Forecast of close-to-close volatility over the next {HAR_HORIZON} sessions, annual on 252: regression of the root mean "
        f"squared return of {HAR_HORIZON} sessions on that of the {HAR_LAGS[0]}, {HAR_LAGS[1]} and {HAR_LAGS[2]} sessions before "
        f"them, least squares with a constant and slopes of at least 0, over the underlying's own last {CLOSE_SESSIONS} sessions; "
        "cut to the range of what was regressed. Closes as in log_return.",
        f"{HAR_MIN_RETURNS} consecutive returns, or with gaps as many sessions to learn from and none in the last {HAR_LAGS[-1]}",
        "per 1.00",
        checks=_NOT_NEGATIVE,
    ),
    _factor("iv_minus_har", "atm_iv_30d - har_forecast_21d.", f"both of them, so {HAR_MIN_RETURNS} returns", "per 1.00"),
    *(
        _factor(
            f"{side}_iv_change_21s",
            f"atm_{side}_iv_30d less its value {IV_CHANGE_SESSIONS} sessions before (An, Ang, Bali and Cakici 2014).",
            "both sessions",
            "per 1.00",
        )
        for side in ("call", "put")
    ),
    _factor(
        "realized_over_implied_move",
        "|log_return| / implied_move_1d of the session before: what happened over what options had in them.",
        "a return, and an implied move on the session before",
        "moves per implied move",
        checks=_NOT_NEGATIVE,
    ),
)

FACTOR_PANEL = Dataset(
    name="factor_panel",
    layer=Layer.DERIVED,
    doc="Daily factors with their place in the underlying's own past. The past is split-adjusted to the session's basis.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        *PASSED_THROUGH,
        _factor(
            "log_return",
            "ln(close / close of the session before), split-adjusted, dividends left in; closes of daily stock bars, else "
            "`spot_close`.",
            "a close on this session and the one before",
            "per session",
        ),
        _factor(
            "realized_vol_20d",
            f"Close-to-close volatility of the last {REALIZED_RETURNS} daily log returns, annual on 252 sessions.",
            f"{REALIZED_RETURNS + 1} consecutive closes",
            "per 1.00",
            checks=_NOT_NEGATIVE,
        ),
        _factor("iv_minus_rv", "atm_iv_30d - realized_vol_20d.", f"both of them, so {REALIZED_RETURNS + 1} closes", "per 1.00"),
        *_VOL_SPREAD,
        _factor(
            "open_interest_change",
            "open_interest_close - open_interest_open.",
            "open interest of this session and the one before",
            "contracts",
            dtype=pl.Int64(),
            adjust=Adjust.CONTRACTS,
        ),
        _factor(
            "oi_change_ratio",
            "open_interest_change / option_volume: near 1 where volume opened positions, negative where it closed them.",
            "open interest of both sessions and one traded contract",
            "contracts per contract traded",
        ),
        *(
            _contracts(
                name,
                f"The lesser of {source} of this session and of the session before: flow that comes back.",
                "both sessions",
            )
            for name, source in REPEATED.items()
        ),
        *_scores(),
        _factor(
            "atm_iv_30d_percentile",
            "Share of past sessions whose atm_iv_30d lies below this one's.",
            f"{MIN_HISTORY} past sessions with a value",
            "share of sessions",
            checks=_SHARE,
        ),
        _factor(
            "history_sessions",
            f"Past sessions of this underlying that the scores could draw on, at most {HISTORY_SESSIONS - 1}.",
            "no past",
            "sessions",
            dtype=pl.Int64(),
            checks=_NOT_NEGATIVE,
            nullable=False,
        ),
        *PANEL_FLOW,
        _NOT_AVAILABLE,
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
)

FACTORS = (OPTION_IV, DAILY_FACTORS, FACTOR_PANEL)
