"""Why a factor of a row is null, in words."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from flowlake.datasets.absent import not_available, present
from flowlake.datasets.model import Inputs

_FLOW = ("option_trades", "option_bars_1d", "option_bars_1m")
_STOCK = ("equity_bars_1d", "equity_bars_1m")
_OPEN_INTEREST = ("open_interest",)
_TRADES = ("option_trades",)
_SURFACE = ("iv_surface",)
_QUOTES = ("option_quotes_eod",)
_RATES = ("rates",)

_NO_RISE = (
    "open interest of both sessions is not there, a split or change of symbol lies between them, or a traded contract has no spot"
)

_DAILY: Mapping[str, tuple[tuple[str, ...], str]] = {
    "spot_close": ((), "no stock bar, and no option price with a spot in the last 30 minutes"),
    "option_volume": (_FLOW, "no volume"),
    "call_volume": (_FLOW, "no volume"),
    "put_volume": (_FLOW, "no volume"),
    "option_trade_count": (_FLOW, "the bars do not count transactions"),
    "premium_usd": (_FLOW, "no volume"),
    "call_premium_usd": (_FLOW, "no volume"),
    "put_premium_usd": (_FLOW, "no volume"),
    "put_call_volume_ratio": (_FLOW, "no call traded"),
    "option_to_stock_volume": (_STOCK, "no stock volume or no option volume"),
    "stock_volume": (_STOCK, "no stock bar"),
    "otm_short_call_volume": (_FLOW, "a traded contract has no spot"),
    "otm_short_put_volume": (_FLOW, "a traded contract has no spot"),
    "otm_short_call_premium_usd": (_FLOW, "a traded contract has no spot"),
    "otm_short_put_premium_usd": (_FLOW, "a traded contract has no spot"),
    "swept_otm_call_volume": (_TRADES, "a traded contract has no spot"),
    "swept_otm_put_volume": (_TRADES, "a traded contract has no spot"),
    "largest_contract_sweep_volume": (_TRADES, "a traded contract has no spot"),
    "swept_opening_call_volume": (_TRADES, _NO_RISE),
    "swept_opening_put_volume": (_TRADES, _NO_RISE),
    "iso_share": (_TRADES, "no eligible trade"),
    "multi_leg_share": (_TRADES, "no eligible trade"),
    "auction_share": (_TRADES, "no eligible trade"),
    "largest_print_premium_usd": (_TRADES, "no eligible trade"),
    "contracts_traded": (_FLOW, "no volume"),
    "atm_iv_30d": ((), "no smiles around 30 days"),
    "skew_25d": ((), "no smiles around 30 days that reach 25 delta on both sides"),
    "call_put_iv_spread": (_OPEN_INTEREST, "no rates, or fewer than 3 pairs with open interest, volatilities and a spot"),
    "smirk": ((), "no expiry of 10 to 60 days with a volatility of a put below and of a call at the spot"),
    "atm_call_iv_30d": (_RATES, "no calls around the forward at 30 days"),
    "atm_put_iv_30d": (_RATES, "no puts around the forward at 30 days"),
    "term_slope": (_SURFACE, "the surface lacks atm_iv at 30 or at 90 days"),
    "butterfly_25d_30d": (_SURFACE, "the surface lacks it at 30 days"),
    "skew_10d_30d": (_SURFACE, "the surface lacks it at 30 days"),
    "implied_move_1d": (_SURFACE, "the surface lacks atm_iv at 7, 14 and 30 days"),
    "surface_residual": (_SURFACE, "the surface lacks atm_iv at 30 days"),
    "parity_violation_bps": (_QUOTES, "no rates, no pair of one strike with sound quotes, no forward, or no spot but parity's"),
    "vertical_violation_bps": (_QUOTES, "no spot, or no expiry with 3 sound quotes of one right"),
    "butterfly_violation_bps": (_QUOTES, "no spot, or no expiry with 3 sound quotes of one right"),
    "calendar_violation_bps": (_QUOTES, "no spot, no two expiries with sound quotes to compare, or, of European ones, no rates"),
    "violations": (_QUOTES, "no sound quotes that can be compared"),
    "gamma_exposure_usd": (_OPEN_INTEREST, "no open interest, no spot, or no smile for half of it"),
    "vanna_exposure_usd": (_OPEN_INTEREST, "gamma_exposure_usd is null"),
    "charm_exposure_usd": (_OPEN_INTEREST, "gamma_exposure_usd is null"),
    "gamma_flip": (_OPEN_INTEREST, "gamma_exposure_usd is null, or of one sign from half to one and a half times the spot"),
    "gamma_flip_distance": (_OPEN_INTEREST, "gamma_flip is null"),
    "gamma_flips": (_OPEN_INTEREST, "gamma_exposure_usd is null"),
    "max_pain": (_OPEN_INTEREST, "no open interest after this session"),
    "max_pain_days": (_OPEN_INTEREST, "no open interest after this session"),
    "max_pain_distance": (_OPEN_INTEREST, "max_pain or spot_close is null"),
    "squeeze_risk": (_OPEN_INTEREST, "gamma_exposure_usd or stock volume is null"),
    "gamma_traded_usd": (_FLOW, "no volume in contracts that outlive the session, no spot, or no smile for half of it"),
    "open_interest_close": (_OPEN_INTEREST, "not reported for this session"),
    "open_interest_open": (_OPEN_INTEREST, "not reported for the session before"),
    "volume_to_open_interest": (_OPEN_INTEREST, "no volume, or open_interest_open is null or 0"),
}


def daily_reasons(inputs: Inputs) -> pl.Expr:
    """The column `not_available` of `daily_factors`: a factor lacks its input, or the input lacks what the factor needs."""
    return not_available(
        {
            factor: otherwise
            if not needs or any(present(inputs, name) is not None for name in needs)
            else f"needs {' or '.join(needs)}"
            for factor, (needs, otherwise) in _DAILY.items()
        }
    )
