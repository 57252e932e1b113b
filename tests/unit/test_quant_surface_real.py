"""Slices and nodes of real index chains, from the quotes of a published snapshot."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtr

from flowlake.core.arrays import Float
from flowlake.curate.contracts import contracts
from flowlake.curate.quotes import option_quotes_eod
from flowlake.datasets.curated import CONTRACTS, OPTION_QUOTES_EOD
from flowlake.datasets.factors import OPTION_IV
from flowlake.datasets.model import Dataset, Output
from flowlake.datasets.raw import RAW
from flowlake.factors.option_iv import option_iv
from flowlake.quant import european
from flowlake.quant.surface import (
    NODES,
    TENOR_DAYS,
    FitReason,
    NodeReason,
    at_the_money,
    delta_strike_vol,
    fit_svi,
    surface_nodes,
    svi_g,
    svi_total_variance,
)
from flowlake.sources import feeds

SESSIONS = [date(2026, 6, 12), date(2026, 6, 24), date(2026, 7, 16)]


class Smile(NamedTuple):
    years: float
    log_moneyness: Float
    vol: Float
    half_spread: Float


def published(output: Output, dataset: Dataset, session: date) -> pl.DataFrame:
    return dataset.conform(output.tables[dataset.name], session).with_columns(session=pl.lit(session))


@cache
def smiles(bucket: Path, session: date) -> list[Smile]:
    """Out-of-the-money quotes with a bid, by expiry and root; half-spreads in volatility."""
    key = f"cboe_snapshots/SPX/{session}.csv.gz"
    found = feeds.match(key)
    assert found is not None
    raw = {dataset.name: dataset for dataset in RAW}[found.feed.dataset.name]
    parsed = raw.conform(feeds.parse(found.feed, key, (bucket / key).read_bytes()), session)
    known = {raw.name: parsed.with_columns(session=pl.lit(session))}
    for step, dataset in ((contracts, CONTRACTS), (option_quotes_eod, OPTION_QUOTES_EOD), (option_iv, OPTION_IV)):
        known[dataset.name] = published(step(known, session), dataset, session)
    quotes = known["option_quotes_eod"].select("contract", "bid", "ask")
    rows = known["option_iv"].filter(pl.col("quality") == "ok").join(quotes, on="contract").filter(pl.col("bid") > 0)
    chain = []
    for _, group in rows.sort("expiry", "root", "contract").group_by("expiry", "root", maintain_order=True):
        right = np.where((group["right"] == "C").to_numpy(), 1.0, -1.0)
        strike, forward, years, discount = (group[name].to_numpy() for name in ("strike", "forward", "years", "discount"))
        low, high = (
            european.implied_vol(group[side].to_numpy(), forward, strike, years, right, discount) for side in ("bid", "ask")
        )
        k, half = np.log(strike / forward), 0.5 * (high - low)
        used = (right * k >= 0) & np.isfinite(half)
        chain.append(Smile(float(years[0]), k[used], group["iv"].to_numpy()[used], half[used]))
    return chain


@pytest.mark.parametrize("session", SESSIONS)
def test_slices_of_index_smiles(real_data: Path, session: date) -> None:
    """14 to 180 days: every smile gets a slice without arbitrage, typically within two tenths of a volatility point.

    The quotes are narrower than that: one in five is met to within its spread, which is what five parameters can do.
    """
    weighted, near, inside = [], [], []
    for smile in smiles(real_data, session):
        if not 14 <= smile.years * 365 <= 180:
            continue
        fit = fit_svi(smile.log_moneyness, smile.vol, smile.years, smile.half_spread)
        assert fit.reason is FitReason.OK
        assert svi_g(np.linspace(-3, 3, 3001), *fit.parameters).min() >= 0
        error = np.sqrt(svi_total_variance(smile.log_moneyness, *fit.parameters) / smile.years) - smile.vol
        assert fit.max_error_vol == pytest.approx(np.abs(error).max(), rel=1e-9)
        s = smile.vol * np.sqrt(smile.years)
        call_delta = ndtr(0.5 * s - smile.log_moneyness / s)
        weighted.append(fit.weighted_rmse_vol)
        near.append(np.sqrt(np.mean(error[np.abs(call_delta - 0.5) < 0.45] ** 2)))
        inside.append(fit.inside_spread)
    assert len(weighted) > 25
    assert np.median(weighted) < 0.0025
    assert np.max(weighted) < 0.005
    assert np.median(near) < 0.0021
    assert np.mean(inside) > 0.15


@pytest.mark.parametrize("session", SESSIONS)
def test_nodes_of_index_chains_agree_with_the_raw_points(real_data: Path, session: date) -> None:
    chain = smiles(real_data, session)
    columns = [np.concatenate(column) for column in zip(*(smile[1:] for smile in chain), strict=True)]
    years = np.concatenate([np.full(smile.vol.size, smile.years) for smile in chain])
    found = surface_nodes(years, *columns)
    assert (found.reason == NodeReason.OK).all()
    assert np.isfinite(found.vol).all()
    assert (found.skew_25d > 0.02).all()
    assert (found.butterfly_25d > 0.0).all()
    assert (found.vol[:, NODES.index("p10")] > found.vol[:, NODES.index("p25")]).all()
    differences = []
    for smile in chain:
        if 14 <= smile.years * 365 <= 365:
            row = found.expiry_vol[found.expiry_years == smile.years][0]
            points = [delta_strike_vol(*smile[1:3], smile.years, delta).vol for delta in (-0.1, -0.25, 0.25, 0.1)]
            differences.append(row - np.array([at_the_money(*smile[1:3]), *points]))
    both = np.array(differences)[np.isfinite(differences)]
    assert both.size > 0.95 * np.size(differences)
    assert np.abs(both).max() < 0.012
    assert np.sqrt(np.mean(both**2)) < 0.0035
    checked = found.calendar_violation[np.isfinite(found.calendar_violation)]
    assert np.mean(checked <= 0.0) > 0.9
    assert len(TENOR_DAYS) == found.vol.shape[0]
