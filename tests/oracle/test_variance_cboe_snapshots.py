"""The VIX-style index of real SPX chains against the published close of the VIX."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl

from flowlake.quant.variance import MINUTES_PER_YEAR, TARGET_MINUTES, VixStyleVariance, vix_style_index, vix_style_variance

# About what the Treasury's 1-month bill paid; 1 point of it moves the index by a few thousandths.
RATE = 0.037
# Captured during the session: the published close is of another moment.
INTRADAY = "2026-06-23"


def terms(chain: pl.DataFrame) -> list[tuple[int, VixStyleVariance]]:
    """Minutes to the expiry and variance of each expiry around 30 days whose roots the snapshot does not mix."""
    found = []
    for days in range(21, 45):
        rows = chain.filter(pl.col("dte") == days)
        if rows.is_empty() or rows.select("strike", "cp").is_duplicated().any():
            continue
        wide = rows.pivot(on="cp", index="strike", values=["bid", "ask"])
        strip = (wide[name].to_numpy() for name in ("strike", "bid_C", "ask_C", "bid_P", "ask_P"))
        # Quotes of 16:15, expiry at 16:00.
        minutes = days * 1440 - 15
        variance = vix_style_variance(*strip, years=minutes / MINUTES_PER_YEAR, rate=RATE)
        if variance.reason == "":
            found.append((minutes, variance))
    return found


def test_the_index_of_each_snapshot_is_near_the_published_close(real_data: Path) -> None:
    published = pl.read_csv(real_data / "cboe_snapshots" / "cboe_vix.csv")
    close = dict(zip(published["date"], published["value"], strict=True))
    differences = []
    for file in sorted((real_data / "cboe_snapshots" / "SPX").glob("*.csv.gz")):
        session = file.name.removesuffix(".csv.gz")
        if session == INTRADAY or session not in close:
            continue
        chain = pl.read_csv(gzip.decompress(file.read_bytes()), comment_prefix="#")
        expiries = terms(chain)
        near = max((t for t in expiries if t[0] <= TARGET_MINUTES), key=lambda t: t[0])
        following = min((t for t in expiries if t[0] > TARGET_MINUTES), key=lambda t: t[0])
        index = vix_style_index(near[1].variance, near[0], following[1].variance, following[0])
        differences.append(float(index) - close[session])
    assert len(differences) >= 20
    # The exchange takes other expiries, quotes filtered over seconds before 16:15, and interpolates its rates.
    assert np.median(np.abs(differences)) < 0.25
    assert np.max(np.abs(differences)) < 0.6
