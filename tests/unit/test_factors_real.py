"""Factors of real sessions: volatilities against a vendor's, whole chains, and a stock split."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flowlake.curate import bars, contracts, quotes
from flowlake.datasets.curated import CURATED
from flowlake.datasets.factors import FACTORS
from flowlake.datasets.model import Dataset, Inputs, Output
from flowlake.datasets.raw import RAW
from flowlake.datasets.volatility import IV_SURFACE
from flowlake.factors.daily import daily_factors
from flowlake.factors.option_iv import option_iv
from flowlake.factors.smiles import smiles, volatility_factors
from flowlake.factors.surfaces import iv_surface
from flowlake.sources import feeds

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (*RAW, *CURATED, *FACTORS, IV_SURFACE)}


def published(output: Output, session: date) -> dict[str, pl.DataFrame]:
    return {n: DATASETS[n].conform(f, session).with_columns(session=pl.lit(session)) for n, f in output.tables.items()}


def raw(bucket: Path, session: date, *keys: str) -> dict[str, pl.DataFrame]:
    tables = {}
    for key in keys:
        found = feeds.match(key)
        assert found is not None
        parsed = feeds.parse(found.feed, key, (bucket / key).read_bytes())
        tables[found.feed.dataset.name] = parsed
    return published(Output(tables), session)


def chain(bucket: Path, session: date, *, with_stocks: bool = True) -> Inputs:
    """Minute bars of options, and of stocks, curated, with `option_iv`."""
    day = f"{session:%Y/%m}/{session}.csv.gz"
    stocks = (f"us_stocks_sip/minute_aggs_v1/{day}", f"us_stocks_sip/day_aggs_v1/{day}") if with_stocks else ()
    known = raw(bucket, session, f"us_options_opra/minute_aggs_v1/{day}", *stocks)
    steps = [contracts.contracts, bars.option_bars_1m]
    steps += [bars.equity_bars_1m, bars.equity_bars_1d] if with_stocks else []
    for step in (*steps, option_iv):
        known |= published(step(known, session), session)
    return known


@pytest.mark.parametrize("session", [date(2026, 6, 12), date(2026, 6, 24), date(2026, 7, 16)])
def test_index_volatilities_agree_with_the_vendor(real_data: Path, session: date) -> None:
    """14 to 60 days, strikes within a tenth of the forward: differences below 0.0010, without any rate file."""
    known = raw(real_data, session, f"cboe_snapshots/SPX/{session}.csv.gz")
    for step in (contracts.contracts, quotes.option_quotes_eod, option_iv):
        known |= published(step(known, session), session)
    near = known["option_iv"].filter(
        (pl.col("expiry") - pl.col("session")).dt.total_days().is_between(14, 60)
        & ((pl.col("strike") / pl.col("forward") - 1).abs() < 0.1)
    )
    difference = near.select((pl.col("iv") - pl.col("vendor_iv")).drop_nulls()).to_series()
    assert difference.len() > 4_000
    assert abs(difference.median()) < 0.0010  # type: ignore[arg-type,operator]
    assert difference.abs().median() < 0.0010  # type: ignore[operator]


@pytest.mark.parametrize("session", [date(2026, 6, 12), date(2026, 7, 16)])
def test_the_fitted_surface_agrees_with_the_quotes_around_the_nodes(real_data: Path, session: date) -> None:
    """SPX has a strike at every delta: reading between two neighbours is the truth, to a tenth of a volatility point."""
    known = raw(real_data, session, f"cboe_snapshots/SPX/{session}.csv.gz")
    for step in (contracts.contracts, quotes.option_quotes_eod, option_iv, iv_surface):
        known |= published(step(known, session), session)
    found = known["iv_surface"].filter(pl.col("tenor_days") == 30).row(0, named=True)
    read = volatility_factors(
        smiles(known["option_iv"].join(known["contracts"].select("contract", "expires_utc"), on="contract"), session)
    )
    assert found["atm_iv"] == pytest.approx(read["atm_iv_30d"].item(), abs=0.002)
    assert found["skew_25d"] == pytest.approx(read["skew_25d"].item(), abs=0.004)


@pytest.mark.parametrize("with_stocks", [True, False])
def test_a_whole_chain_of_minute_bars(real_data: Path, with_stocks: bool) -> None:
    session = date(2023, 8, 3)
    known = chain(real_data, session, with_stocks=with_stocks)
    implied = known["option_iv"]
    assert implied.height == 3_986
    assert implied.filter(pl.col("quality") == "ok").height > 3_200
    ok = implied.filter(pl.col("quality") == "ok")
    assert ok.select(pl.col("iv", "delta", "gamma", "vega", "theta").is_null().sum()).row(0) == (0, 0, 0, 0, 0)
    # A call and a put at one strike share a volatility; they agree only if spot, forward and moments fit together.
    month = ok.filter(pl.col("years").is_between(14 / 365, 60 / 365) & ((pl.col("strike") / pl.col("forward") - 1).abs() < 0.02))
    pairs = month.filter(pl.col("right") == "C").join(
        month.filter(pl.col("right") == "P"), on=["expiry", "strike", "ts_utc"], suffix="_put"
    )
    assert pairs.height >= 10
    assert pairs.select((pl.col("iv") - pl.col("iv_put")).abs().median()).item() < 0.004
    row = daily_factors(known, session).tables["daily_factors"].row(0, named=True)
    assert row["option_volume"] == 7_372_301
    assert row["atm_iv_30d"] == pytest.approx(0.135, abs=0.01)
    assert row["skew_25d"] == pytest.approx(0.042, abs=0.01)
    assert (row["spot_source"] == "equity_bars_1d") == with_stocks


def test_a_split_moves_no_volatility(real_data: Path) -> None:
    """AAPL split 7:1 on 2014-06-09; prices and strikes divide, the volatility stays."""
    before, after = (
        daily_factors(chain(real_data, session), session).tables["daily_factors"].filter(pl.col("underlying") == "AAPL")
        for session in (date(2014, 6, 6), date(2014, 6, 9))
    )
    assert before["spot_close"].item() == 645.57
    assert after["spot_close"].item() == 93.70
    assert abs(after["atm_iv_30d"].item() - before["atm_iv_30d"].item()) < 0.04
