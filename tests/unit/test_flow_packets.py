"""Packets by hand: which prints belong together, what they are called, what is known of them, and what next morning says."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.curate import trades
from flowlake.curate.conditions import OPRA_MASSIVE
from flowlake.curate.symbols import parse_tickers
from flowlake.datasets.curated import CORPORATE_ACTIONS, OPEN_INTEREST, OPTION_TRADES
from flowlake.datasets.packets import FLOW_PACKETS, FLOW_RECEIPTS, OPENING_CLAIM, PACKET_PRINTS
from flowlake.flow import opening
from flowlake.flow.packets import flow_packets
from flowlake.flow.receipts import flow_receipts
from flowlake.quality.audit import audit

T = date(2024, 3, 13)
OPEN = datetime(2024, 3, 13, 13, 30)  # noqa: DTZ001
CONDITIONS = {c.id: c for c in OPRA_MASSIVE.conditions}
C100, C105, C110, C115 = (f"ABC240322C00{k}000" for k in (100, 105, 110, 115))
P100, P95, P90 = "ABC240322P00100000", "ABC240322P00095000", "ABC240322P00090000"
FAR100, FAR105 = "ABC240419C00100000", "ABC240419C00105000"


def tape(*prints: dict[str, Any]) -> pl.DataFrame:
    """`option_trades` of prints: contract, ms after the open, price, size, condition, exchange; the rest from the policy."""
    rows = []
    for given in prints:
        p = {"contract": C100, "ms": 0, "price": 1.0, "size": 1, "condition": 209, "exchange": 302} | given
        c = CONDITIONS[p["condition"]]
        marks = {column.name: getattr(c, column.name) for column in OPTION_TRADES.columns if hasattr(c, column.name)}
        rows.append(
            {k: p[k] for k in ("contract", "price", "size", "condition", "exchange")}
            | {"ts_utc": OPEN + timedelta(milliseconds=p["ms"]), "is_cancelled": p.get("is_cancelled", False)}
            | {"conditions": str(p["condition"]), "condition_group": c.group, "premium_usd": p["price"] * p["size"] * 100.0}
            | marks
        )
    frame = pl.DataFrame(rows)
    parsed = parse_tickers(("O:" + frame["contract"]).alias("ticker"))
    fields = parsed.select("contract", "root", "expiry", "right", "strike").unique("contract")
    frame = frame.join(fields, on="contract", how="left").with_columns(underlying=pl.col("root"))
    return OPTION_TRADES.conform(frame.with_columns(pl.col("ts_utc").dt.replace_time_zone("UTC")), T)


def sides_of(trades_: pl.DataFrame, **columns: Any) -> pl.DataFrame:
    """`trade_sides` of every print: bid 0.90, ask 1.10, 5 ms old, unless told otherwise."""
    usual = {"bid": 0.9, "ask": 1.1, "quote_age_ms": 5.0, "buy_probability": None} | columns
    table = trades_.select("contract", "ts_utc").with_columns(print_no=pl.int_range(pl.len(), dtype=pl.UInt32))
    return table.with_columns(pl.Series(n, v if isinstance(v, list) else [v] * table.height, pl.Float64) for n, v in usual.items())


def interest(held: dict[str, int], of: date, source: str = "open_interest_file") -> pl.DataFrame:
    fields = pl.DataFrame({"contract": list(held), "open_interest_close": list(held.values())}).with_columns(
        underlying=pl.col("contract").str.extract("^([A-Z]+)"),
        root=pl.col("contract").str.extract("^([A-Z]+)"),
        expiry=T,
        right=pl.lit("C"),
        strike=100.0,
        oi_session=pl.lit(of),
        root_is_inferred=False,
        source=pl.lit(source),
        known_at_utc=sessions.open_interest_known_at(of),
    )
    return OPEN_INTEREST.conform(fields, of).with_columns(session=pl.lit(of))


def run(trades_: pl.DataFrame, **inputs: pl.DataFrame) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Packets and their prints, as declared."""
    out = flow_packets({"option_trades": trades_, **inputs}, T).tables
    packets, evidence = (ds.conform(out[ds.name], T) for ds in (FLOW_PACKETS, PACKET_PRINTS))
    assert packets["packet_id"].equals(out["flow_packets"]["packet_id"]), "in order as it is made"
    return packets.to_dicts(), evidence


def test_what_is_made_passes_its_audit() -> None:
    prints = tape({"size": 500}, {"ms": 9, "condition": 202}, *legs((C100, 5), (P95, 5)), *legs((C100, 5), (C105, 5), ms=50))
    held = pl.concat([interest({C100: 100, C105: 0, P95: 7}, date(2024, 3, 12)), interest({C100: 600}, T)])
    volatility = pl.DataFrame({"contract": [C100, C105], "delta": [0.5, 0.3]})
    inputs = {"option_trades": prints, "trade_sides": sides_of(prints), "open_interest": held, "option_iv": volatility}
    inputs |= flow_packets(inputs, T).tables
    inputs |= flow_receipts(inputs, T).tables
    for ds in (FLOW_PACKETS, PACKET_PRINTS, FLOW_RECEIPTS):
        table = ds.conform(inputs[ds.name], T)
        found = audit(ds, table, T)
        assert table.height > 0
        assert found.success, [(f.rule, f.count) for f in found.errors]


def names(*prints: dict[str, Any], **inputs: pl.DataFrame) -> list[tuple[str, int]]:
    return sorted((p["structure"], p["fills"]) for p in run(tape(*prints), **inputs)[0])


def test_fills_on_several_venues_are_a_sweep_with_or_without_the_mark() -> None:
    marked = [{"ms": 2 * i, "exchange": 302 + i, "condition": 219} for i in range(4)]
    assert names(*marked) == [("sweep", 4)]
    plain = [{"ms": i, "exchange": 302 + i} for i in range(3)]
    assert names(*plain) == [("sweep", 3)]
    packet = run(tape(*marked))[0][0]
    assert (packet["venues"], packet["iso_share"], packet["structure"]) == (4, 1.0, "sweep")
    assert run(tape(*plain))[0][0]["iso_share"] == 0.0
    assert names(*({"ms": 0, "condition": 219} for _ in range(2))) == [("sweep", 2)], "marked, on one venue"


def test_fills_on_one_venue_are_a_split_a_large_one_is_a_block_the_rest_is_single() -> None:
    assert names({"ms": 0}, {"ms": 1}) == [("split", 2)]
    assert names({"size": 100}) == [("block", 1)]
    assert names({"size": 99, "condition": 219}) == [("single", 1)]


def test_windows() -> None:
    assert names({"ms": 0}, {"ms": 2}) == [("single", 1), ("single", 1)]
    assert names({"condition": 219}, {"ms": 10, "condition": 219}) == [("sweep", 2)]
    assert names({"condition": 219}, {"ms": 11, "condition": 219}) == [("single", 1), ("single", 1)]
    # A chain of gaps that are short enough ends when it has lasted too long.
    assert names(*({"ms": 10 * i, "condition": 219} for i in range(12))) == [("single", 1), ("sweep", 11)]
    assert names({"ms": 0}, {"ms": 0, "contract": C105}) == [("single", 1), ("single", 1)]


def test_auctions_crosses_and_sweeps_do_not_mix_and_auctions_stay_on_their_venue() -> None:
    assert names({}, {"condition": 219}, {"condition": 227}, {"condition": 229}, {"condition": 231}) == [("single", 1)] * 5
    assert names({"condition": 227}, {"condition": 227, "exchange": 308}) == [("single", 1), ("single", 1)]
    assert names({"condition": 227}, {"condition": 227}) == [("split", 2)]


def test_purchases_and_sales_of_one_moment_are_parted() -> None:
    prints = tape(*({"exchange": 302 + i, "size": 2 + i} for i in range(5)))
    sides = sides_of(prints, buy_probability=[0.9, 0.9, 0.1, 0.1, None])
    packets, evidence = run(prints, trade_sides=sides)
    assert sorted((p["fills"], p["buy_probability"]) for p in packets) == [(2, 0.9), (3, 0.1)], (
        "what is unknown goes with the larger"
    )
    assert evidence.group_by("packet_id").len()["len"].sort().to_list() == [2, 3]


def test_what_takes_no_part() -> None:
    prints = tape({"condition": 202}, {"is_cancelled": True}, {"condition": 247}, {"ms": 9, "size": 7})
    packets, evidence = run(prints)
    assert [p["size"] for p in packets] == [7]
    assert prints[evidence["print_no"].to_list()]["size"].to_list() == [7]
    assert packets[0]["volume_before"] == 1, "a compression trade is in the volume"


def legs(*of: tuple[str, int], **common: Any) -> list[dict[str, Any]]:
    return [
        {"contract": contract, "size": size, "condition": 232, "price": 1.0 + i} | common for i, (contract, size) in enumerate(of)
    ]


@pytest.mark.parametrize(
    ("of", "structure", "text"),
    [
        ([(C100, 5), (C105, 5)], "vertical", "-1 ABC240322C00100000 | +1 ABC240322C00105000"),
        ([(C100, 5), (C105, 10)], "ratio", "-1 ABC240322C00100000 | +2 ABC240322C00105000"),
        ([(C100, 5), (FAR100, 5)], "calendar", "-1 ABC240322C00100000 | +1 ABC240419C00100000"),
        ([(C100, 5), (FAR105, 5)], "diagonal", "-1 ABC240322C00100000 | +1 ABC240419C00105000"),
        ([(C100, 3), (FAR100, 6)], "ratio", "-1 ABC240322C00100000 | +2 ABC240419C00100000"),
        (
            [(C100, 5), (C105, 10), (C110, 5)],
            "butterfly",
            "+1 ABC240322C00100000 | -2 ABC240322C00105000 | +1 ABC240322C00110000",
        ),
        ([(C100, 5), (C105, 15), (C110, 10)], "butterfly", None),
        ([(C100, 5), (C105, 5), (C110, 5)], "ladder", "-1 ABC240322C00100000 | +1 ABC240322C00105000 | +1 ABC240322C00110000"),
        ([(P90, 5), (P95, 5), (P100, 5)], "ladder", None),
        ([(C100, 5), (C105, 5), (C110, 5), (C115, 5)], "condor", None),
        ([(P90, 5), (P95, 5), (C105, 5), (C110, 5)], "iron_condor", None),
        ([(P95, 5), (P100, 5), (C100, 5), (C105, 5)], "iron_condor", None),
        ([(P95, 5), (P100, 5), (C95 := "ABC240322C00095000", 5), (C100, 5)], "other_package", None),
        ([(C100, 5), (P95, 5)], "strangle_or_risk_reversal", "?1 ABC240322C00100000 | ?1 ABC240322P00095000"),
        ([(C100, 1), (C105, 50)], "other_package", None),
        ([("SPX240315C05100000", 5), ("SPXW240315C05100000", 5)], "other_package", None),
        ([("SPX240315C05100000", 5), ("SPXW240315C05150000", 5)], "other_package", None),
        ([("SPX240315C05100000", 5), ("SPXW240322C05100000", 5)], "calendar", None),
        ([("SPX240315C05100000", 5), ("SPXW240315P05100000", 5)], "other_package", None),
        ([(C100, 5), ("ABC1240322C00105000", 5)], "other_package", None),
        ([(C100, 5), ("ABC1240419C00100000", 5)], "other_package", None),
        ([("ABC1240322C00100000", 5), ("ABC1240322C00105000", 5)], "vertical", None),
        ([(C100, 5), ("ABC240419P00095000", 5)], "other_package", None),
    ],
)
def test_packages_by_their_legs(of: list[tuple[str, int]], structure: str, text: str | None) -> None:
    prints = tape(*legs(*of)).with_columns(pl.col("root").str.strip_suffix("W").str.strip_suffix("1").alias("underlying"))
    packets, evidence = run(prints)
    assert [(p["structure"], p["leg_count"], p["fills"]) for p in packets] == [(structure, len(of), len(of))]
    if text is not None:
        assert packets[0]["legs"] == text
    assert evidence["leg"].sort().to_list() == list(range(1, len(of) + 1))


@pytest.mark.parametrize(
    ("second", "prices", "structure"),
    [
        (P100, (1.1, 1.1), "straddle"),
        (P100, (1.1, 0.9), "synthetic"),
        (P95, (0.9, 0.9), "strangle"),
        (P95, (0.9, 1.1), "risk_reversal"),
        (P95, (1.0, 1.1), "strangle_or_risk_reversal"),
        (P100, (1.0, 1.1), "straddle_or_synthetic"),
    ],
)
def test_a_call_and_a_put_are_named_by_their_sides(second: str, prices: tuple[float, float], structure: str) -> None:
    prints = tape(
        {"contract": C100, "condition": 232, "price": prices[0], "size": 5},
        {"contract": second, "condition": 232, "price": prices[1], "size": 5},
    )
    packet = run(prints, trade_sides=sides_of(prints))[0][0]
    assert packet["structure"] == structure
    assert (packet["structure_probability"] is None) == ("_or_" in structure)
    if structure in ("straddle", "strangle"):
        assert packet["legs"] == f"+1 {C100} | +1 {second}"
        assert (packet["buy_probability"] > 0.98) == (structure == "straddle")
        assert packet["structure_probability"] == pytest.approx(0.7900, abs=1e-3)
    bare = run(prints)[0][0]
    assert bare["structure"] == ("straddle_or_synthetic" if second == P100 else "strangle_or_risk_reversal")
    assert bare["reasons"].startswith("structure: sides unknown; no side")


def test_the_sides_of_a_vertical_are_weighed_together() -> None:
    prints = tape(*legs((C100, 10), (C105, 10)))  # 1.00 and 2.00, so the second leg is the one that is paid for
    sides = sides_of(prints, bid=[0.9, 1.9], ask=[1.1, 2.1])
    middle = run(prints, trade_sides=sides)[0][0]
    assert (middle["buy_probability"], middle["net_premium_usd"]) == (0.5, 0.0)
    paid = run(prints, trade_sides=sides.with_columns(bid=pl.Series([0.9, 1.8]), ask=pl.Series([1.1, 2.0])))[0][0]
    assert paid["buy_probability"] == pytest.approx(1 / (1 + 2.718281828**-2.0), abs=1e-6)
    assert paid["net_premium_usd"] == pytest.approx((2 * paid["buy_probability"] - 1) * 1_000.0, abs=1e-3)
    assert (paid["contract"], paid["vwap"], paid["open_interest_open"], paid["strike"], paid["right"]) == (
        None,
        None,
        None,
        None,
        "C",
    )


def test_packages_that_met_are_taken_apart_by_size_and_fills_of_one_stay_together() -> None:
    met = legs((C100, 5), (C105, 5)) + legs((P90, 3), (P95, 3))
    assert names(*met) == [("vertical", 2), ("vertical", 2)]
    pieces = legs((C100, 3), (C105, 3)) + legs((C100, 7), (C105, 7))
    packet = run(tape(*pieces))[0][0]
    assert (packet["structure"], packet["fills"], packet["size"], packet["contracts"]) == ("vertical", 4, 10, 20)
    apart = legs((C100, 5), (C105, 5)) + legs((C100, 5), (C105, 5), ms=2)
    assert names(*apart) == [("vertical", 2), ("vertical", 2)]
    assert names(*legs((C100, 5)), *legs((C105, 5), exchange=308)) == [("other_package", 1), ("other_package", 1)]


def test_lone_legs_and_stock() -> None:
    lone, stock = run(tape({"condition": 236, "size": 4}))[0][0], run(tape({"condition": 240, "size": 4}))[0][0]
    assert (lone["structure"], lone["contract"], lone["reasons"].split(";")[0]) == (
        "other_package",
        C100,
        "structure: other legs not found",
    )
    assert (stock["structure"], stock["contract"], stock["leg_count"]) == ("stock_tied", C100, 1)
    assert run(tape(*legs((C100, 5), (P100, 5), condition=240)))[0][0]["structure"] == "stock_tied"


def test_a_roll_moves_what_was_open() -> None:
    prints = tape(*legs((C100, 50), (FAR100, 50)))
    for held, structure in ((50, "roll"), (500, "roll"), (501, "calendar"), (49, "calendar")):
        assert run(prints, open_interest=interest({C100: held, FAR100: 0}, date(2024, 3, 12)))[0][0]["structure"] == structure
    small = tape(*legs((C100, 19), (FAR100, 19)))
    assert run(small, open_interest=interest({C100: 30}, date(2024, 3, 12)))[0][0]["structure"] == "calendar"


def test_repeated_hits_are_one_packet_and_sweeps_of_the_row_stay_apart() -> None:
    minute = 60_000
    row = [{"ms": minute * k, "size": 30 + k} for k in (0, 9, 25)]
    sweep = [{"ms": minute * 17, "size": 20, "condition": 219, "exchange": x} for x in (302, 303)]
    packets, evidence = run(tape(*row, *sweep))
    assert [(p["structure"], p["fills"], p["size"], p["hits_so_far"]) for p in packets] == [
        ("repeated_hits", 3, 30 + 39 + 55, 4),
        ("sweep", 2, 40, 3),
    ]
    assert packets[0]["last_ts_utc"].replace(tzinfo=None) == OPEN + timedelta(minutes=25)
    assert evidence.height == 5
    assert names(*row) == [("single", 1)] * 3, "25 minutes are too long a pause"
    crowd = [{"ms": minute * k + 30_000, "size": 19} for k in range(25) for _ in range(1)]
    assert ("repeated_hits", 3) not in names(*row, *sweep, *crowd), "not half of the volume meanwhile"
    assert names(*({"ms": minute * k, "size": 19} for k in range(5))) == [("single", 1)] * 5, "too small"


def test_hits_of_either_side_are_rows_of_their_own() -> None:
    prints = tape(*({"ms": 60_000 * k, "size": 50} for k in range(6)))
    sides = sides_of(prints, buy_probability=[0.9, 0.1] * 3)
    packets = run(prints, trade_sides=sides)[0]
    assert [(p["structure"], p["fills"], p["buy_probability"]) for p in packets] == [
        ("repeated_hits", 3, 0.9),
        ("repeated_hits", 3, 0.1),
    ]


def test_the_numbers_of_a_sweep() -> None:
    prints = tape(
        {"price": 1.0, "size": 10, "exchange": 302, "condition": 219},
        {"price": 1.1, "size": 20, "exchange": 303, "condition": 219},
        {"price": 1.2, "size": 30, "exchange": 304, "condition": 219, "ms": 1},
        {"price": 1.3, "size": 60, "exchange": 305, "condition": 228, "ms": 1},
    )
    sides = sides_of(prints, buy_probability=[0.6, 0.8, 0.9, None], bid=[0.9, 0.9, 0.9, None], quote_age_ms=[5.0, 2.5, 400.0, None])
    volatility = pl.DataFrame({"contract": [C100], "delta": [0.4]})
    packet = run(prints, trade_sides=sides, option_iv=volatility, open_interest=interest({C100: 100}, date(2024, 3, 12)))[0][0]
    told = {
        "structure": "sweep",
        "fills": 4,
        "venues": 4,
        "size": 120,
        "contracts": 120,
        "premium_usd": 1_000.0 + 2_200.0 + 3_600.0 + 7_800.0,
        "net_premium_usd": 0.2 * 1_000 + 0.6 * 2_200 + 0.8 * 3_600,
        "vwap": (10 + 22 + 36 + 78) / 120,
        "min_price": 1.0,
        "max_price": 1.3,
        "first_price": 32 / 30,
        "last_price": 114 / 90,
        "buy_probability": (6 + 16 + 27) / 60,
        "side_coverage": 0.5,
        "nbbo_coverage": 0.5,
        "aggressor_share": 50 / 60,  # 1.10 and 1.20 at the ask of 1.10 or above, of 60 contracts with a quote
        "median_quote_age_ms": 5.0,
        "iso_share": 1.0,
        "auction_share": 0.5,
        "cross_share": 0.0,
        "delta": 0.4,
        "open_interest_open": 100,
        "volume_before": 0,
        "volume_so_far": 120,
        "opening_size_min": 20,
        "days_to_expiry": 9,
        "reasons": "",
    }
    for name, value in told.items():
        assert packet[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name
    assert packet["net_delta_shares"] == pytest.approx((2 * packet["buy_probability"] - 1) * 0.4 * 120 * 100)
    assert packet["known_at_utc"] == sessions.decision_time(T), "delta rests on the day's volatility"
    assert packet["packet_id"] == "ABC-48600000-0"


@pytest.mark.parametrize(
    ("ages", "median"),
    [([5.0, 2.5, 7.0, 400.0], 5.0), ([5.0, None, None, None], None), ([5.0, 2.5, None, None], 5.0), ([None] * 4, None)],
)
def test_a_quote_without_an_age_is_older_than_any_and_still_a_quote(ages: list[float | None], median: float | None) -> None:
    """One young quote does not make the median of several of which nobody knows the age."""
    prints = tape(*({"price": 1.0, "size": 10, "exchange": 302 + i, "condition": 219} for i in range(4)))
    packet = run(prints, trade_sides=sides_of(prints, buy_probability=0.9, quote_age_ms=ages))[0][0]
    assert (packet["fills"], packet["median_quote_age_ms"], packet["nbbo_coverage"]) == (4, median, 1.0)
    assert packet["aggressor_share"] is not None


def test_without_quotes_and_open_interest_nothing_is_guessed() -> None:
    packet = run(tape({"size": 50}))[0][0]
    missing = ("net_premium_usd", "buy_probability", "aggressor_share", "median_quote_age_ms", "delta", "net_delta_shares")
    opened = ("open_interest_open", "opening_size_min", "opening_probability")
    assert [packet[name] for name in (*missing, *opened)] == [None] * 9
    assert (packet["side_coverage"], packet["nbbo_coverage"]) == (0.0, 0.0)
    assert packet["reasons"] == "no side; no quote; no delta; no open interest"
    assert packet["known_at_utc"] == sessions.decision_time(T)


def test_no_prints_no_packets() -> None:
    for prints in (tape({}).head(0), tape({"condition": 202})):
        packets, evidence = run(prints)
        assert (packets, evidence.height) == ([], 0)
        made = flow_packets({"option_trades": prints}, T).tables
        assert flow_receipts({"option_trades": prints, **made}, T).tables["flow_receipts"].height == 0


def test_what_is_more_than_open_must_have_opened() -> None:
    before = date(2024, 3, 12)
    prints = tape({"size": 30}, {"ms": 5_000, "size": 200}, {"contract": C105, "size": 9}, {"contract": "XYZ240322C00100000"})
    packets = run(prints, open_interest=interest({C100: 100}, before))[0]
    bounds = {(p["contract"], p["size"]): (p["open_interest_open"], p["opening_size_min"]) for p in packets}
    assert bounds == {
        (C100, 30): (100, 0),
        (C100, 200): (100, 70),
        (C105, 9): (0, 9),
        ("XYZ240322C00100000", 1): (None, None),
    }, "a contract new to a reported underlying has nothing open; one of an underlying without a report is not known"
    assert next(p for p in packets if p["contract"] == C105)["opening_probability"] == 1.0


def test_a_split_leaves_open_interest_unknown() -> None:
    split = {"underlying": "ABC", "ex_date": T, "kind": "split", "ratio": 4.0, "new_symbol": None, "cash_amount_usd": None}
    told = {"announced_at_utc": None, "source": "x", "known_at_utc": sessions.decision_time(T)}
    actions = CORPORATE_ACTIONS.conform(pl.DataFrame([split | told]), T)
    packet = run(tape({}), open_interest=interest({C100: 5}, date(2024, 3, 12)), corporate_actions=actions)[0][0]
    assert (packet["open_interest_open"], packet["opening_probability"]) == (None, None)


def test_of_several_reports_the_fuller_one_counts() -> None:
    before = date(2024, 3, 12)
    both = pl.concat([interest({C100: 7}, before, "a"), interest({C100: 3, C105: 2}, before, "b")])
    assert run(tape({}), open_interest=both)[0][0]["open_interest_open"] == 3


def test_the_opening_model_stays_within_its_bounds_and_follows_the_evidence() -> None:
    import numpy as np

    size = np.array([10, 400, 400, 400, 10])
    evidence = opening.Evidence(
        size=size,
        open_interest=np.array([1_000, 10_000, 10_000, 100, -1]),
        volume_before=np.zeros(5, np.int64),
        days=np.array([0, 30, 30, 30, 30]),
        hits=np.array([0, 0, 9, 0, 0]),
        is_sweep=np.array([False, False, True, False, False]),
        is_package=np.zeros(5, np.bool_),
    )
    p = opening.probability(evidence)
    assert p[0] < 0.5 < p[1] < p[2] == opening.CEILING
    assert p[3] == 0.75, "300 of 400 cannot have closed"
    assert np.isnan(p[4])


def receipts(trades_: pl.DataFrame, before: dict[str, int], after: dict[str, int]) -> list[dict[str, Any]]:
    held = pl.concat([interest(before, date(2024, 3, 12)), interest(after, T)]) if after else interest(before, date(2024, 3, 12))
    inputs = {"option_trades": trades_, "open_interest": held}
    inputs |= flow_packets(inputs, T).tables
    table = FLOW_RECEIPTS.conform(flow_receipts(inputs, T).tables["flow_receipts"], T)
    assert (table["known_at_utc"] == sessions.decision_time(T)).all()
    return table.to_dicts()


@pytest.mark.parametrize(
    ("after", "verdict", "bounds"),
    [
        ({C100: 1_050}, "supported", (981, 1_000)),
        ({C100: 569}, "supported", (500, 1_000)),
        ({C100: 568}, "undecidable", (499, 1_000)),
        ({C100: 50}, "undecidable", (0, 1_000)),
        ({}, "undecidable", (None, None)),
        ({C105: 5}, "undecidable", (None, None)),
        ({C100: 1_070}, "undecidable", (None, None)),
    ],
)
def test_receipts_by_hand(after: dict[str, int], verdict: str, bounds: tuple[int | None, int | None]) -> None:
    """1,000 claimed (of 1,000, 950 cannot have closed) and 19 others, on 50 open contracts."""
    found = receipts(tape({"size": 1_000}, {"ms": 5_000, "size": 19}), {C100: 50}, after)
    assert [(r["contract"], r["claims"], r["claimed_opening"], r["volume"], r["verdict"]) for r in found] == [
        (C100, 1, 1_000, 1_019, verdict)
    ]
    assert (found[0]["opened_min"], found[0]["opened_max"]) == bounds
    if C100 in after:
        assert found[0]["open_interest_change"] == after[C100] - 50
        assert ("of 1000 claimed" if bounds[0] is not None else "more than the 1019 contracts traded") in found[0]["reason"]
    else:
        assert "no open interest of the session's close" in found[0]["reason"]


def test_a_fall_of_open_interest_contradicts() -> None:
    """Of 1,000 contracts traded, hits of one side claim 900; open interest falls by 800, so at most 200 opened."""
    prints = tape(
        *({"ms": 60_000 * k, "size": 300, "condition": 227, "exchange": 302} for k in range(3)), {"ms": 400_000, "size": 100}
    )
    sides = sides_of(prints, buy_probability=0.9)
    held = pl.concat([interest({C100: 5_000}, date(2024, 3, 12)), interest({C100: 4_200}, T)])
    inputs = {"option_trades": prints, "open_interest": held, "trade_sides": sides}
    inputs |= flow_packets(inputs, T).tables
    assert inputs["flow_packets"]["opening_probability"].max() >= OPENING_CLAIM
    found = flow_receipts(inputs, T).tables["flow_receipts"].to_dicts()[0]
    claimed = found["claimed_opening"]
    assert (found["verdict"], found["opened_min"], found["opened_max"]) == ("contradicted", 0, 200)
    assert claimed > 400
    assert found["expected_opening"] <= claimed


def test_legs_of_packages_claim_too() -> None:
    found = receipts(tape(*legs((C100, 500), (C105, 500))), {C100: 0, C105: 0}, {C100: 500, C105: 0})
    assert [(r["contract"], r["claimed_opening"], r["verdict"]) for r in found] == [
        (C100, 500, "supported"),
        (C105, 500, "undecidable"),
    ]


def test_every_real_print_that_takes_part_is_in_one_packet(real_data: Path) -> None:
    from unit.test_curate_real_files import SAMPLE, massive, session_inputs

    inputs = session_inputs(real_data, SAMPLE, massive("us_options_opra/trades_v1", SAMPLE))
    prints = OPTION_TRADES.conform(trades.option_trades(inputs, SAMPLE).tables["option_trades"], SAMPLE)
    out = flow_packets({"option_trades": prints}, SAMPLE).tables
    packets, evidence = out["flow_packets"], out["packet_prints"]
    assert packets["contracts"].sum() == prints.filter("in_volume")["size"].sum()
    assert evidence["print_no"].is_unique().all()
    assert packets["fills"].sum() == evidence.height == prints.filter("in_volume").height
