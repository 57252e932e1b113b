"""Packets depend on neither the order inside a moment, nor other underlyings, nor threads; and a slow twin finds the same."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.packets import BURST_GAP_MS, BURST_SPAN_MS, FLOW_PACKETS, FLOW_RECEIPTS, PACKET_PRINTS, SWEEP_GAP_MS
from flowlake.flow import _bursts
from flowlake.flow.packets import find, flow_packets
from flowlake.flow.receipts import flow_receipts
from unit.test_flow_packets import C100, C105, FAR100, P95, P100, T, interest, sides_of, tape

BEFORE = date(2024, 3, 12)
OTHERS = ("XYZ240322C00050000", "XYZ240322P00050000", "MMM240322C00020000")
CONTRACTS = (C100, C105, P95, P100, FAR100, *OTHERS)
PRINTS = st.fixed_dictionaries(
    {
        "contract": st.sampled_from(CONTRACTS),
        # Few moments, so that many prints share one; some far apart.
        "ms": st.integers(0, 12) | st.sampled_from([60_000, 60_001, 400_000, 500_000, 900_000]),
        "price": st.sampled_from([0.5, 1.0, 1.05]),
        "size": st.sampled_from([1, 2, 5, 20, 40, 150]),
        "condition": st.sampled_from([209, 209, 219, 227, 228, 229, 231, 232, 232, 235, 240, 202, 247]),
        "exchange": st.sampled_from([302, 303, 313]),
    }
)
TAPES = st.lists(PRINTS, min_size=1, max_size=60)
HELD = interest({C100: 30, C105: 5, P95: 1_000, "XYZ240322C00050000": 60}, BEFORE)
AFTER = interest({C100: 90, C105: 5, P95: 1_100, "XYZ240322C00050000": 10}, T)
VOLATILITY = pl.DataFrame({"contract": [C100, P100, "XYZ240322C00050000"], "delta": [0.5, -0.5, 0.2]})


def inputs_of(trades: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Sides by content: equal prints have equal sides, as the quote of a moment gives them."""
    code = (trades["price"] * 100).cast(pl.Int64) + trades["size"] + trades["exchange"]
    bought = code.replace_strict({c: [None, 0.1, 0.5, 0.9][c % 4] for c in code.unique()}, return_dtype=pl.Float64)
    sides = sides_of(trades, bid=0.8, ask=1.02, buy_probability=bought.to_list())
    return {"option_trades": trades, "trade_sides": sides, "open_interest": pl.concat([HELD, AFTER]), "option_iv": VOLATILITY}


def made(trades: pl.DataFrame) -> dict[str, pl.DataFrame]:
    inputs = inputs_of(trades)
    tables = flow_packets(inputs, T).tables
    tables |= flow_receipts(inputs | tables, T).tables
    return {ds.name: ds.conform(tables[ds.name], T) for ds in (FLOW_PACKETS, PACKET_PRINTS, FLOW_RECEIPTS)}


@settings(max_examples=60)
@given(TAPES, st.randoms(use_true_random=False))
def test_the_order_inside_a_moment_changes_nothing(prints: list[dict[str, Any]], random: Any) -> None:
    trades = tape(*prints)
    shuffled = list(range(trades.height))
    random.shuffle(shuffled)
    # By contract and time as a partition is, in any order within a moment: a partition orders these rows by their content too.
    rows = trades.with_row_index("before")[shuffled].sort("root", "expiry", "right", "strike", "ts_utc", maintain_order=True)
    first, second = made(trades), made(rows.drop("before"))
    for name in ("flow_packets", "flow_receipts"):
        assert first[name].equals(second[name])

    def evidence(tables: dict[str, pl.DataFrame], of: pl.DataFrame) -> pl.DataFrame:
        told = of.with_row_index("print_no").cast({"print_no": pl.Int64}).select("print_no", "price", "condition", "exchange")
        return tables["packet_prints"].join(told, on="print_no").drop("print_no").sort(pl.all())

    assert evidence(first, trades).equals(evidence(second, rows.drop("before")))
    assert OPTION_TRADES.conform(rows.drop("before"), T).equals(trades), "what the lake publishes is the same in any case"


@settings(max_examples=40)
@given(TAPES)
def test_other_underlyings_change_nothing(prints: list[dict[str, Any]]) -> None:
    trades = tape(*prints)
    whole = made(trades)
    parts = []
    for underlying in trades["underlying"].unique().sort():
        rows = trades.with_row_index("at").filter(pl.col("underlying") == underlying)
        part = made(rows.drop("at"))
        at = rows["at"].cast(pl.Int64)
        part["packet_prints"] = part["packet_prints"].with_columns(at.gather(part["packet_prints"]["print_no"]).alias("print_no"))
        parts.append(part)
    for ds in (FLOW_PACKETS, PACKET_PRINTS, FLOW_RECEIPTS):
        joined = ds.conform(pl.concat([part[ds.name] for part in parts]), T)
        assert joined.equals(whole[ds.name]), ds.name


@settings(max_examples=60)
@given(TAPES)
def test_every_print_that_takes_part_is_in_one_packet_and_nothing_is_lost(prints: list[dict[str, Any]]) -> None:
    trades = tape(*prints)
    tables = made(trades)
    packets, evidence = tables["flow_packets"], tables["packet_prints"]
    takes_part = trades.filter(pl.col("in_volume") & ~pl.col("is_late") & (pl.col("condition_group") != "compression"))
    assert evidence.height == takes_part.height == packets["fills"].sum()
    assert packets["contracts"].sum() == takes_part["size"].sum()
    assert packets["premium_usd"].sum() == pytest.approx(takes_part["premium_usd"].sum())
    per_packet = evidence.group_by("packet_id").agg(pl.len().alias("n"), pl.col("size").sum(), pl.col("leg").n_unique())
    both = packets.join(per_packet, on="packet_id", how="left", suffix="_of_prints")
    assert (both["fills"] == both["n"]).all()
    assert (both["contracts"] == both["size_of_prints"]).all()
    assert (both["leg_count"] == both["leg"]).all()
    bound = packets.filter(pl.col("opening_size_min").is_not_null())
    assert (bound["opening_probability"] >= bound["opening_size_min"] / bound["size"] - 1e-9).all()
    for row in tables["flow_receipts"].drop_nulls("opened_min").rows(named=True):
        assert row["opened_min"] >= 0, row
        assert row["opened_min"] <= max(row["opened_max"], 0), row


def slow_events(trades: pl.DataFrame) -> list[tuple[tuple[int, ...], ...]]:
    """Events of prints without sides, print by print: sets of row numbers."""
    found: list[tuple[int, ...]] = []
    rows = trades.with_row_index("no").filter(
        pl.col("in_volume") & ~(pl.col("is_multi_leg") | pl.col("is_stock_tied")) & (pl.col("condition_group") != "compression")
    )

    def lane(row: dict[str, Any]) -> tuple[str, int]:
        if row["is_iso"]:
            return ("iso", 0)
        kind = next((kind for kind in ("is_floor", "is_cross", "is_auction") if row[kind]), "plain")
        return (kind, 0 if kind == "plain" else row["exchange"])

    keyed = sorted(((r["contract"], lane(r), r["ts_utc"], r["no"]) for r in rows.rows(named=True)), key=lambda k: k)
    for (_, (kind, _)), group in groupby(keyed, key=lambda k: (k[0], k[1])):
        gap = SWEEP_GAP_MS if kind == "iso" else BURST_GAP_MS
        event: list[tuple[Any, int]] = []
        for _, _, ts, number in group:
            milliseconds = ts.timestamp() * 1000
            if event and (round(milliseconds - event[-1][0], 3) > gap or round(milliseconds - event[0][0], 3) > BURST_SPAN_MS):
                found.append(tuple(n for _, n in event))
                event = []
            event.append((milliseconds, number))
        found.append(tuple(n for _, n in event))
    return sorted(tuple(sorted(event)) for event in found)


@settings(max_examples=60)
@given(TAPES)
def test_a_slow_twin_finds_the_same_events(prints: list[dict[str, Any]]) -> None:
    trades = tape(*prints)
    packets, evidence = flow_packets({"option_trades": trades}, T).tables.values()
    ours = evidence.join(packets.select("packet_id", "structure"), on="packet_id").join(
        trades.with_row_index("print_no").cast({"print_no": pl.Int64}).select("print_no", "is_multi_leg", "is_stock_tied"),
        on="print_no",
    )
    ours = ours.filter(~(pl.col("is_multi_leg") | pl.col("is_stock_tied")))
    events = sorted(
        tuple(sorted(rows))
        for rows in ours.filter(pl.col("structure") != "repeated_hits").group_by("packet_id").agg("print_no")["print_no"]
    )
    slow = slow_events(trades)
    merged = set(ours.filter(pl.col("structure") == "repeated_hits")["print_no"])
    assert events == [event for event in slow if not merged & set(event)]
    assert merged == {number for event in slow if merged & set(event) for number in event}, "whole events are merged"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_volume_marks(prints: list[tuple[int, int, int]]) -> None:
    rows = sorted(prints, key=lambda p: p[:2])
    contract, ts, size = (np.array([p[i] for p in rows], dtype=np.int64) for i in range(3))
    before, through = _bursts.volume_marks(contract, ts, size)
    for i, (c, t, _) in enumerate(rows):
        assert before[i] == sum(p[2] for p in rows if p[0] == c and p[1] < t)
        assert through[i] == sum(p[2] for p in rows if p[0] == c and p[1] <= t)


SCRIPT = """
import hashlib, io, random, sys
import polars as pl
from property.test_flow_packets_properties import CONTRACTS, made
from unit.test_flow_packets import tape
draw = random.Random(5)
conditions = [209, 209, 219, 227, 232, 232, 231, 240]
prints = [
    dict(contract=draw.choice(CONTRACTS), ms=draw.randrange(0, 40_000), price=draw.choice([0.5, 1.0, 1.05]),
         size=draw.choice([1, 2, 5, 20, 150]), condition=draw.choice(conditions), exchange=draw.choice([302, 303, 313]))
    for _ in range(20_000)
]
for name, table in made(tape(*prints)).items():
    buffer = io.BytesIO()
    table.write_ipc(buffer)
    print(name, table.height, hashlib.sha256(buffer.getvalue()).hexdigest())
"""


def test_threads_change_no_byte() -> None:
    """Enough prints for Polars to share them among its threads."""
    told = set()
    for threads in ("1", "2"):
        variables = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
        here = os.environ | variables | {"PYTHONPATH": "tests"}
        ended = subprocess.run([sys.executable, "-c", SCRIPT], env=here, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 0, ended.stderr
        told.add(ended.stdout)
    assert len(told) == 1
    assert "flow_packets" in told.pop()


def test_an_unordered_frame_gives_the_same_packets() -> None:
    trades = tape(*({"contract": c, "ms": 7 * k % 30, "size": 1 + k} for k, c in enumerate(CONTRACTS * 4)))
    backwards = trades.reverse()
    first, second = (find({"option_trades": frame}, T)[0] for frame in (trades, backwards))
    assert np.array_equal(first.sums, second.sums)
    table = flow_packets({"option_trades": trades}, T).tables
    other = flow_packets({"option_trades": backwards}, T).tables
    assert table["flow_packets"].equals(other["flow_packets"])
    mirrored = other["packet_prints"].with_columns(print_no=trades.height - 1 - pl.col("print_no")).sort("print_no")
    assert mirrored.equals(table["packet_prints"].sort("print_no"))
