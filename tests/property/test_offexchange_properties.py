"""Off-exchange prints, whatever the rows: none is lost, none is counted twice, and the order of the file decides nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flowlake.core import sessions
from flowlake.curate.offexchange import offexchange_prints
from flowlake.datasets.model import SESSION
from flowlake.datasets.offexchange import MILLIONTHS, STATES
from flowlake.datasets.registry import DATASETS
from flowlake.flow._offexchange_kernels import rank_correlations, totals_by_mark
from flowlake.flow.lit import minute_volatility
from flowlake.flow.offexchange import offexchange_activity
from flowlake.flow.offexchange_blocks import absorbed_probability
from flowlake.flow.offexchange_history import offexchange_accumulation
from flowlake.flow.offexchange_levels import level_width
from unit.test_offexchange import raw as raw_trades

DAY = date(2024, 3, 13)
OPEN_NS = int(sessions.open_utc(DAY).timestamp()) * 10**9
CONDITIONS = [None, "", "37", "14", "14,37", "12", "2,41", "53,52,41", "10", "22", "32", "16", "999", "x,1"]
CORRECTIONS = [None, "", "0", "00", "1", "7", "8", "10", "11", "12", "5"]

TRADE = st.fixed_dictionaries(
    {
        "ticker": st.sampled_from(["AA", "BB"]),
        "conditions": st.sampled_from(CONDITIONS),
        "correction": st.sampled_from(CORRECTIONS),
        "exchange": st.sampled_from([4, 4, 11]),
        # Few moments, prices and sizes, so that rows repeat each other and messages find trades.
        "sip_timestamp": st.integers(0, 6).map(lambda minute: OPEN_NS + minute * 7 * 60 * 10**9),
        "delay": st.sampled_from([None, 0, 1_000, 11 * 10**9]),
        "price": st.sampled_from([0.0, 0.5, 49.9912, 50.0, 50.005, 50.0099, 51.0]),
        "size": st.sampled_from([0.0, 0.25, 33.0, 100.0, 20_000.0]),
        "trf_id": st.sampled_from([None, 0, 201, 202]),
    }
)


def raw(rows: list[dict[str, Any]]) -> pl.DataFrame:
    made = [
        {key: value for key, value in row.items() if key != "delay"}
        | {
            "participant_timestamp": None if row["delay"] is None else row["sip_timestamp"] - row["delay"],
            "id": "1",
            "sequence_number": 1,
            "tape": 1,
            "trf_timestamp": 0,
        }
        for row in rows
    ]
    return raw_trades(*made)


def tables_of(rows: list[dict[str, Any]]) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    out = offexchange_prints({"massive_stock_trades": raw(rows)}, DAY)
    tables = {
        name: DATASETS[name].conform(frame, DAY).with_columns(pl.lit(DAY).alias(SESSION)) for name, frame in out.tables.items()
    }
    made = offexchange_activity(tables, DAY).tables
    told = {f"{f.dataset}: {f.rule}": f.row_count for f in out.findings}
    return tables | {name: DATASETS[name].conform(frame, DAY) for name, frame in made.items()}, told


@settings(max_examples=60)
@given(st.lists(TRADE, max_size=40))
def test_every_row_is_accounted_for(rows: list[dict[str, Any]]) -> None:
    tables, told = tables_of(rows)
    off = [r for r in rows if r["exchange"] == 4 and r["trf_id"] in (201, 202)]
    rejected = ("price_not_positive", "size_not_positive", "unknown_correction", "outside_session_date")
    kept = len(off) - sum(told.get(f"offexchange_prints: {rule}", 0) for rule in rejected)
    good = [r for r in off if r["price"] > 0 and r["size"] > 0 and r["correction"] != "5"]
    messages = [r for r in good if r["correction"] in ("10", "11", "12")]
    assert kept == len(good)
    assert tables["offexchange_prints"].height == len(good) - len(messages)
    marked = sum(r["correction"] in ("7", "8") for r in good)
    cancels = sum(r["correction"] in ("10", "11") for r in good)
    unmatched = told.get("offexchange_prints: unmatched_cancel", 0)
    cancelled = int(tables["offexchange_prints"]["is_cancelled"].sum())
    assert marked <= cancelled <= marked + cancels - unmatched
    assert not tables["offexchange_prints"].filter(pl.col("is_cancelled") & pl.col("in_volume")).height


@settings(max_examples=40)
@given(st.lists(TRADE, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_the_file_decides_no_print(rows: list[dict[str, Any]], chance: Any) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    (one, told), (other, again) = tables_of(rows), tables_of(shuffled)
    assert told == again
    # First and last of a bar are the file's order within one timestamp; all else must agree to the bit.
    unordered = {"lit_bars_1m": ["open", "close"], "offexchange_activity": ["lit_close", "close_gap_bps", "not_available"]}
    for name, frame in one.items():
        if name == "offexchange_blocks":
            continue
        drop = unordered.get(name, [])
        assert_frame_equal(frame.drop(drop), other[name].drop(drop), check_exact=True)


@settings(max_examples=40)
@given(st.lists(TRADE, max_size=40))
def test_totals_add_up(rows: list[dict[str, Any]]) -> None:
    tables, _ = tables_of(rows)
    prints, activity, levels = (tables[name] for name in ("offexchange_prints", "offexchange_activity", "offexchange_levels"))
    counted = prints.filter("in_volume")
    assert activity["off_volume"].sum() == counted["size"].sum()
    assert activity["lit_volume"].sum() == tables["lit_bars_1m"]["volume"].sum()
    classes = activity.select(pl.sum_horizontal("odd_lot_volume", "round_lot_volume", "large_volume", "block_volume"))
    np.testing.assert_array_equal(classes.to_series().to_numpy(), activity["off_volume"].to_numpy())
    assert (activity["buy_volume"] + activity["sell_volume"] <= activity["off_volume"]).all()
    assert levels["volume"].sum() <= counted["size"].sum()
    assert levels.select((pl.col("buy_volume") + pl.col("sell_volume") <= pl.col("volume")).all()).item()
    assert activity["absorbed_blocks"].sum() + activity["moved_blocks"].sum() <= tables["offexchange_blocks"].height
    for name in ("offexchange_activity", "offexchange_blocks", "offexchange_levels"):
        for column in DATASETS[name].columns:
            for check in column.all_checks():
                assert not tables[name].filter(check.failing(column.name)).height, (name, column.name)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**5 - 1), st.integers(0, 10**12)), max_size=50),
)
def test_totals_by_mark_against_a_slow_twin(rows: list[tuple[int, int, int]]) -> None:
    group, marks, values = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    wanted = [[sum(v for g, m, v in rows if g == i and m >> k & 1) for k in range(5)] for i in range(4)]
    assert totals_by_mark(group, marks, values, 4, 5).tolist() == wanted


@settings(max_examples=100)
@given(st.floats(-0.5, 0.5), st.floats(0.0, 0.5), st.floats(1e-6, 0.5))
def test_a_probability_is_one_and_falls_with_the_move(move: float, expected: float, noise: float) -> None:
    p, back, less = absorbed_probability(np.array([move, -move, 0.5 * move]), np.full(3, expected), np.full(3, noise))
    assert 0.0 <= p <= 1.0
    assert p == back
    assert less >= p - 1e-12


@settings(max_examples=100)
@given(st.floats(0.001, 900_000.0))
def test_a_level_is_a_round_number_of_ticks_and_at_least_its_share(price: float) -> None:
    width = int(level_width(np.array([price]))[0])
    tick = 10_000 if price >= 1.0 else 100
    assert width % tick == 0
    assert str(width // tick).rstrip("0") in ("1", "2", "5")
    assert width >= 0.001 * price * MILLIONTHS * (1 - 1e-6) or width == tick
    assert width <= max(tick, 2.5 * 0.001 * price * MILLIONTHS * (1 + 1e-6))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=30))
def test_a_rank_correlation_knows_only_order(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array([[p[i] for p in pairs]]).reshape(1, len(pairs)) for i in range(2))
    out = []
    for a, b in ((x, y), (-x, y), (y, x)):
        count, found = np.zeros(1, dtype=np.int64), np.zeros(1)
        rank_correlations(np.ascontiguousarray(a), np.ascontiguousarray(b), count, found)
        assert count[0] == len(pairs)
        out.append(float(found[0]))
    assert np.isnan(out[0]) or -1.0 <= out[0] <= 1.0
    np.testing.assert_allclose(out[1], -out[0], atol=1e-12)
    np.testing.assert_allclose(out[2], out[0], atol=1e-12)


@settings(max_examples=40)
@given(st.floats(0.01, 1000.0), st.integers(40, 120), st.integers(0, 2**31))
def test_volatility_has_no_unit_of_price(scale: float, count: int, seed: int) -> None:
    close = np.exp(np.cumsum(0.001 * np.random.default_rng(seed).standard_normal(count)))
    key = np.arange(count, dtype=np.int64)
    np.testing.assert_allclose(minute_volatility(key, close * scale, 1), minute_volatility(key, close, 1), rtol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 66), st.floats(0.0, 0.6))
def test_accumulation_gives_a_state_or_a_reason(seed: int, count: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    days = sessions.sessions_between(date(2023, 11, 1), DAY)[-count:]

    def values(size: float) -> pl.Series:
        return pl.Series(np.where(rng.random(count) < missing, np.nan, size * rng.random(count))).fill_nan(None)

    frame = pl.DataFrame(
        {
            "underlying": ["AA"] * count,
            SESSION: days,
            "core_share": values(1.0),
            "pressure": values(1.0),
            "lit_close": values(1.0) + 50.0,
            "off_volume": np.full(count, 10.0),
            "block_volume": np.zeros(count),
        }
    )
    made = offexchange_accumulation({"offexchange_activity": frame}, DAY).tables["offexchange_accumulation"]
    row = DATASETS["offexchange_accumulation"].conform(made, DAY).row(0, named=True)
    both = row["core_share_z"] is not None and row["pressure_z"] is not None
    assert (row["state"] in STATES) == both
    assert both or any(text.startswith("core_share_z: ") for text in row["not_available"])
