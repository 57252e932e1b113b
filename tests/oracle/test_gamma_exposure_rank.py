"""The naive gamma exposure of real SPX chains beside a published daily series, by rank.

The published series (2011-2019) and the chains (June and July 2026) share no day, so the two cannot be compared day by day. What
can be is how each stands to the level of the VIX of the same day and to the last five days' return of the index.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from flowlake.quant import exposure

DAYS = 5


def rank_correlations(days: pl.DataFrame) -> tuple[float, float]:
    """Spearman's correlation of `gamma` with `vix` and with `gain`."""
    vix, gain = (float(spearmanr(days["gamma"], days[name]).statistic) for name in ("vix", "gain"))
    return vix, gain


def vix(real_data: Path) -> pl.DataFrame:
    return pl.read_csv(real_data / "cboe_snapshots" / "cboe_vix.csv", try_parse_dates=True).rename({"value": "vix"})


def gain(close: str) -> pl.Expr:
    return (pl.col(close) / pl.col(close).shift(DAYS)).log().alias("gain")


def published(real_data: Path) -> pl.DataFrame:
    path = real_data / "gex_reference" / "squeezemetrics_dix_gex.csv"
    series = pl.read_csv(path, try_parse_dates=True).sort("date").with_columns(gain("price"), pl.col("gex").alias("gamma"))
    return series.join(vix(real_data), on="date").drop_nulls().sort("date")


def from_chains(real_data: Path) -> pl.DataFrame:
    rows = []
    for path in sorted((real_data / "cboe_snapshots" / "SPX").glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            spot = float(file.readline().split(",")[1])
        chain = pl.read_csv(path, comment_prefix="#")
        right = np.where((chain["cp"] == "C").to_numpy(), 1.0, -1.0)
        gamma, held = (chain[name].cast(pl.Float64).to_numpy() for name in ("gamma", "oi"))
        rows.append((path.name[:10], float(np.nansum(exposure.gamma_exposure(gamma, held, spot, right)))))
    found = pl.DataFrame(rows, schema=["date", "gamma"], orient="row").with_columns(pl.col("date").str.to_date())
    prices = pl.read_csv(real_data / "cboe_snapshots" / "ohlc_spx.csv", try_parse_dates=True).sort("date").with_columns(gain("c"))
    # The files of two exchange holidays have no row in the prices.
    return found.join(prices, on="date").join(vix(real_data), on="date").sort("date")


def test_ranks_with_the_vix_and_with_the_return_as_the_published_series_does(real_data: Path) -> None:
    theirs, ours = published(real_data), from_chains(real_data)
    assert theirs.height > 2_000
    assert ours.height == 23
    assert theirs["date"].max() < ours["date"].min()  # type: ignore[operator]
    their_vix, their_gain = rank_correlations(theirs)
    our_vix, our_gain = rank_correlations(ours)
    assert their_vix < -0.7
    assert their_gain > 0.4
    assert abs(our_vix - their_vix) < 0.15
    assert abs(our_gain - their_gain) < 0.3
    # As long a stretch of the published series varies by much more than the two differ.
    stretches = np.array([rank_correlations(theirs[at : at + ours.height]) for at in range(0, theirs.height - 22, ours.height)])
    low, high = np.quantile(stretches, [0.05, 0.95], axis=0)
    assert low[0] < our_vix < high[0]
    assert low[1] < our_gain < high[1]
