"""Flow factors, scores and hits on random tapes: nothing looks ahead, order is no input, parts add up, kernels equal slow twins."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.flow_factors import FLOW_DATASETS, FLOW_PROFILES, PROFILE_FLOOR, PROFILE_MIN_HISTORY, PROFILE_SESSIONS
from flowlake.datasets.hits import FLOW_HITS
from flowlake.datasets.packets import FLOW_PACKETS
from flowlake.datasets.sides import TRADE_SIDES
from flowlake.flow.abnormality import minute_scores
from flowlake.flow.factors import flow_factors
from flowlake.flow.hits import flow_hits
from unit.test_factors_daily import CALL, FAR, LEGS, PUT, T, implied, leg, master, stock, table, trade
from unit.test_flow_classifiers import listed, minutes, packet, profile

BY_NAME = {dataset.name: dataset for dataset in FLOW_DATASETS}
OPEN = sessions.open_utc(T)
CONTRACTS = master(*LEGS)
IMPLIED = implied({**CALL, "delta": 0.25}, {**PUT, "delta": -0.2}, {**FAR, "delta": 0.5})

PRINT = st.fixed_dictionaries(
    {
        "of": st.sampled_from(LEGS),
        "size": st.integers(1, 500),
        "price": st.integers(1, 20_000).map(lambda cents: cents / 100),
        "second": st.integers(0, 400),
        "exchange": st.sampled_from([300, 312, 325]),
        "is_iso": st.booleans(),
        "is_auction": st.booleans(),
        "is_multi_leg": st.booleans(),
        "probability": st.none() | st.floats(0, 1),
        "quoted": st.booleans(),
    }
)
TAPE = st.lists(PRINT, min_size=1, max_size=25)


def made_of(prints: list[dict[str, Any]], order: list[int] | None = None) -> dict[str, pl.DataFrame]:
    """The outputs of `flow_factors`; `order`: another order of the tape's rows, sides with them."""
    rows = []
    for each in prints:
        marks = {name: each[name] for name in ("exchange", "is_iso", "is_auction", "is_multi_leg")}
        moment = OPEN + timedelta(seconds=each["second"])
        rows.append(trade(each["of"], each["size"], each["price"], ts_utc=moment, **marks))
    trades = table(curated.OPTION_TRADES, rows).with_row_index("row")
    trades = trades.sort("contract", "ts_utc", "row") if order is None else trades[order]
    sides = [
        {
            "underlying": trades["underlying"][i],
            "print_no": i,
            "buy_probability": prints[row]["probability"],
            **({"bid": 1.0, "ask": 2.0} if prints[row]["quoted"] else {}),
        }
        for i, row in enumerate(trades["row"].to_list())
    ]
    inputs = {
        "contracts": CONTRACTS,
        "option_trades": trades.drop("row").with_row_index("print_no"),
        "trade_sides": table(TRADE_SIDES, sides),
        "option_iv": IMPLIED,
        "equity_bars_1d": stock(volume=50_000.0),
    }
    return {name: BY_NAME[name].conform(frame, T) for name, frame in flow_factors(inputs, T).tables.items()}


@settings(max_examples=30)
@given(TAPE, st.randoms(use_true_random=False))
def test_the_order_of_prints_is_no_input(prints: list[dict[str, Any]], rng: Any) -> None:
    order = list(range(len(prints)))
    rng.shuffle(order)
    first, second = made_of(prints), made_of(prints, order)
    for name, frame in first.items():
        assert_frame_equal(frame, second[name], check_exact=True)


@settings(max_examples=30)
@given(TAPE)
def test_factors_equal_a_slow_twin(prints: list[dict[str, Any]]) -> None:
    (found,) = made_of(prints)["flow_factors"].rows(named=True)
    money = [round(each["price"] * each["size"] * 100, 4) for each in prints]
    known = [(each, usd) for each, usd in zip(prints, money, strict=True) if each["probability"] is not None]
    delta = {CALL["contract"]: 0.25, PUT["contract"]: -0.2, FAR["contract"]: 0.5}
    assert math.isclose(found["eligible_premium_usd"], sum(money), rel_tol=1e-12)
    assert math.isclose(found["side_coverage"], sum(usd for _, usd in known) / sum(money), abs_tol=1e-12)
    if not known:
        assert found["net_premium_usd"] is None
        return
    net = {right: sum((2 * e["probability"] - 1) * usd for e, usd in known if e["of"]["right"] == right) for right in "CP"}
    shares = sum((2 * e["probability"] - 1) * e["size"] * 100 * delta[e["of"]["contract"]] for e, _ in known)
    tolerance = 1e-4 * len(prints)
    assert math.isclose(found["net_call_premium_usd"], net["C"], abs_tol=tolerance)
    assert math.isclose(found["net_put_premium_usd"], net["P"], abs_tol=tolerance)
    # Signed contracts are rounded to a ten-thousandth, of a hundred shares each.
    assert math.isclose(found["net_delta_shares"], shares, abs_tol=100 * tolerance)
    assert math.isclose(found["hu_order_imbalance"], found["net_delta_shares"] / 50_000, abs_tol=1e-12)


@settings(max_examples=30)
@given(TAPE)
def test_parts_add_up(prints: list[dict[str, Any]]) -> None:
    made = made_of(prints)
    (found,) = made["flow_factors"].rows(named=True)
    minutes_, venues = made["flow_minutes"], made["venue_flow"]
    tide = made["market_tide"].filter(pl.col("scope") == "all")
    for parts in (minutes_["premium_usd"], venues["premium_usd"], tide["premium_usd"]):
        assert math.isclose(parts.sum(), found["eligible_premium_usd"], rel_tol=1e-12)
    if found["net_premium_usd"] is not None:
        assert math.isclose(tide["call_tide_usd"][-1], found["net_call_premium_usd"], abs_tol=1e-6)
        assert math.isclose(tide["put_tide_usd"][-1], found["net_put_premium_usd"], abs_tol=1e-6)
        for unit in ("premium_usd", "delta_shares"):
            whole = found[f"net_{unit}"]
            if whole is None:
                continue
            split = [found[f"net_{side}_{place}_{unit}"] for side in ("call", "put") for place in ("itm", "atm", "otm")]
            assert math.isclose(sum(split), whole, abs_tol=1e-6)


@settings(max_examples=30)
@given(TAPE, TAPE, st.integers(0, 7))
def test_a_later_minute_changes_no_earlier_one(prints: list[dict[str, Any]], later: list[dict[str, Any]], minute: int) -> None:
    cut = OPEN + timedelta(minutes=minute)
    kept = [each for each in prints if each["second"] < 60 * minute]
    other = [each | {"second": each["second"] + 60 * minute} for each in later]
    first = made_of(prints)
    second = made_of([*kept, *other])
    for name in ("flow_minutes", "market_tide"):
        before = [made[name].filter(pl.col("known_at_utc") <= cut) for made in (first, second)]
        assert_frame_equal(*before, check_exact=True)


# --- Against the past --------------------------------------------------------------------------------------------------------

DAYS = sessions.sessions_between(T - timedelta(days=90), T)[-PROFILE_SESSIONS - 3 :]
LINE = st.dictionaries(st.integers(570, 580), st.integers(0, 10_000_000), min_size=1, max_size=6)


def profiles(lines: dict[date, dict[int, int]]) -> pl.DataFrame:
    empty = {name: [] for name in FLOW_PROFILES.column_names if name.endswith(("bins", "counts"))}
    rows = []
    for day, line in lines.items():
        ordered = sorted(line)
        row = {"underlying": "XYZ", "unit_contracts": 1, "minutes": ordered, "minute_premium_cents": [line[m] for m in ordered]}
        rows.append(table(FLOW_PROFILES, [row | empty], day))
    return pl.concat(rows)


@settings(max_examples=25)
@given(st.lists(LINE, min_size=PROFILE_MIN_HISTORY - 2, max_size=len(DAYS) - 1), LINE)
def test_minute_scores_equal_a_slow_twin(past: list[dict[int, int]], today: dict[int, int]) -> None:
    days = DAYS[-1 - len(past) : -1]
    lines = dict(zip(days, past, strict=True))
    found = {row["ts_utc"]: row for row in minute_scores(profiles({**lines, T: today}), T).rows(named=True)}
    history = list(lines.values())[-(PROFILE_SESSIONS - 1) :]
    if len(history) < PROFILE_MIN_HISTORY:
        assert not found
        return
    assert len(found) == len(today)
    for minute, cents in today.items():
        row = found[sessions.at_et(T, (sessions.OPEN_ET.replace(hour=minute // 60, minute=minute % 60)))]
        so_far = sum(value for m, value in today.items() if m <= minute)
        for value, sample, name in (
            (cents, [line.get(minute, 0) for line in history], "premium"),
            (so_far, [sum(v for m, v in line.items() if m <= minute) for line in history], "cumulative_premium"),
        ):
            usd = np.array(sample) / 100
            centre = np.median(usd)
            assert math.isclose(row[f"typical_{name}_usd"], centre, rel_tol=1e-12)
            if centre == 0:
                assert row[f"{name}_z"] is None
                continue
            spread = max(1.4826 * np.median(np.abs(np.log1p(usd) - np.log1p(centre))), PROFILE_FLOOR)
            assert math.isclose(row[f"{name}_z"], (np.log1p(value / 100) - np.log1p(centre)) / spread, rel_tol=1e-9, abs_tol=1e-9)


@settings(max_examples=25)
@given(st.lists(LINE, min_size=PROFILE_MIN_HISTORY, max_size=PROFILE_MIN_HISTORY + 4), LINE, LINE, st.integers(570, 580))
def test_no_later_minute_or_session_enters_a_score(
    past: list[dict[int, int]], today: dict[int, int], other: dict[int, int], minute: int
) -> None:
    lines = dict(zip(DAYS[-1 - len(past) : -1], past, strict=True))
    changed = {m: v for m, v in today.items() if m <= minute} | {m: v for m, v in other.items() if m > minute}
    first = minute_scores(profiles({**lines, T: today}), T)
    later = profiles({**lines, T: changed or other, sessions.next_session(T): other})
    second = minute_scores(later, T)
    cut = sessions.at_et(T, sessions.OPEN_ET.replace(hour=minute // 60, minute=minute % 60))
    if changed:
        assert_frame_equal(*(frame.filter(pl.col("ts_utc") <= cut) for frame in (first, second)), check_exact=True)


# --- Hits --------------------------------------------------------------------------------------------------------------------

PACKET = st.fixed_dictionaries(
    {
        "of": st.sampled_from([CALL, PUT, FAR]),
        "minute": st.integers(0, 50),
        "structure": st.sampled_from(["sweep", "block", "single", "split", "repeated_hits"]),
        "premium_usd": st.sampled_from([1_000.0, 25_000.0, 60_000.0, 250_000.0]),
        "size": st.sampled_from([10, 200, 600]),
        "buy_probability": st.sampled_from([None, 0.2, 0.9]),
        "nbbo_coverage": st.sampled_from([0.0, 0.4, 1.0]),
        "days_to_expiry": st.sampled_from([0, 10, 400]),
        "floor_share": st.sampled_from([0.0, 1.0]),
        "open_interest_open": st.sampled_from([None, 300]),
    }
)
PACKETS = st.lists(PACKET, min_size=1, max_size=14)


def hits_of(chosen: list[dict[str, Any]]) -> pl.DataFrame:
    rows = []
    volume: dict[str, int] = {}
    for i, each in enumerate(sorted(chosen, key=lambda one: one["minute"])):
        changes = {name: value for name, value in each.items() if name not in ("of", "minute")}
        contract = each["of"]["contract"]
        volume[contract] = volume.get(contract, 0) + each["size"]
        identity = {"packet_id": f"XYZ-{each['minute']:02}-{i}", "contracts": each["size"], "volume_so_far": volume[contract]}
        rows.append(packet(each["minute"], of=each["of"], **changes, **identity))
    return every_hit(rows)


def sweeps_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A hit for each packet of the rows."""
    sweeps = every_hit(rows).filter(pl.col("rule") == "sweep")
    assert sweeps.height == len(rows)
    return sweeps


def every_hit(rows: list[dict[str, Any]]) -> pl.DataFrame:
    inputs = {"flow_packets": table(FLOW_PACKETS, rows), "flow_profiles": profile(100), "flow_minutes": minutes()}
    inputs["contracts"] = listed(*rows)
    return FLOW_HITS.conform(flow_hits(inputs, T).tables["flow_hits"], T)


@settings(max_examples=25)
@given(PACKETS, PACKETS, st.integers(1, 50))
def test_a_later_packet_changes_no_earlier_hit(chosen: list[dict[str, Any]], other: list[dict[str, Any]], minute: int) -> None:
    kept = [each for each in chosen if each["minute"] < minute]
    later = [each | {"minute": minute + each["minute"] % 5} for each in other]
    cut = sessions.at_et(T, sessions.OPEN_ET.replace(hour=10, minute=0)) + timedelta(minutes=minute)
    first, second = (hits_of(each).filter(pl.col("known_at_utc") < cut) for each in (chosen, [*kept, *later]))
    assert_frame_equal(first, second, check_exact=True)


ELSE = {**PUT, "contract": PUT["contract"].replace("XYZ", "ELSE"), "underlying": "ELSE"}
BURST = st.lists(
    st.fixed_dictionaries(
        {
            "of": st.sampled_from([CALL, CALL, CALL, PUT, FAR, leg("C", 105.0, 40), ELSE]),
            "ms": st.integers(0, 30).map(lambda n: 100 * n),
            "lasts": st.sampled_from([0, 0, 5, 999, 1_000, 1_001, 2_500]),
            "size": st.sampled_from([200, 200, 201]),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60)
@given(BURST, st.randoms(use_true_random=False))
def test_legs_are_those_that_a_look_at_every_pair_finds(chosen: list[dict[str, Any]], shuffled: random.Random) -> None:
    rows = []
    for i, each in enumerate(chosen):
        first = packet()["first_ts_utc"] + timedelta(milliseconds=each["ms"])
        times = {"first_ts_utc": first, "last_ts_utc": first + timedelta(milliseconds=each["lasts"])}
        rows.append(packet(of=each["of"], size=each["size"], contracts=each["size"], **times) | {"packet_id": f"XYZ-0-{i}"})
    second = timedelta(seconds=1)
    legs = {
        mine["packet_id"]: [
            other
            for other in rows
            if other["underlying"] == mine["underlying"]
            and other["contract"] != mine["contract"]
            and other["contracts"] == mine["contracts"]
            and abs(other["first_ts_utc"] - mine["first_ts_utc"]) <= second
            and other["last_ts_utc"] <= mine["last_ts_utc"] + second
        ]
        for mine in rows
    }
    shuffled.shuffle(rows)
    for mine in sweeps_of(rows).iter_rows(named=True):
        (packet_id,) = mine["packet_ids"]
        found = {text.split(":")[0] for text in mine["doubts"]} & {"possible_leg", "possible_roll"}
        expiry = next(each["expiry"] for each in rows if each["packet_id"] == packet_id)
        rolled = any((other["right"], other["expiry"] != expiry) == (mine["right"], True) for other in legs[packet_id])
        expected = {"possible_leg"} if legs[packet_id] else set()
        assert found == expected | ({"possible_roll"} if rolled else set())


@settings(max_examples=25)
@given(PACKETS)
def test_no_hit_is_confirmed_without_quotes(chosen: list[dict[str, Any]]) -> None:
    found = hits_of(chosen)
    unsure = found.filter(pl.col("nbbo_coverage") < 0.5)
    assert unsure["tier"].unique().to_list() in ([], ["unconfirmed"])
    assert (unsure["reasons"].str.len_chars() > 0).all()
    assert (found.filter(pl.col("tier") == "confirmed")["reasons"] == "").all()
    assert found["hit_id"].n_unique() == found.height
