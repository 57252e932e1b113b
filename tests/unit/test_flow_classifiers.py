"""The rules of unusual flow at their thresholds, what lowers a hit's tier, and the reasons to doubt it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.core.errors import UsageError
from flowlake.core.settings import FlowThresholds, S3Access, Settings, described, load_settings, thresholds
from flowlake.datasets import curated
from flowlake.datasets.flow_factors import FLOW_MINUTES, FLOW_PROFILES
from flowlake.datasets.hits import CONFIDENCE, FLOW_HITS, MOST_EVIDENCE, QUOTE_CONDITIONS, RULES, THRESHOLDS
from flowlake.datasets.packets import FLOW_PACKETS
from flowlake.flow.hits import flow_hits
from flowlake.flow.profiles import log_bin
from flowlake.lake import partitions
from flowlake.lake.hashing import data_hash
from flowlake.lake.index import Index
from flowlake.lake.publish import publish
from flowlake.lake.store import open_store
from flowlake.pipeline.execute import Context, Options, Task, execute
from flowlake.pipeline.plan import by_name
from unit.test_factors_daily import T, leg, master, table

DEFAULTS = FlowThresholds()
AT = sessions.at_et(T, time(10))
CALL, PUT = leg("C", 110.0, 10), leg("P", 90.0, 10)


def packet(number: int = 0, of: dict[str, Any] = CALL, **changes: Any) -> dict[str, Any]:
    """A large sweep in a call 10 % out of the money, bought on the offer of fresh quotes; meets every threshold of a sweep."""
    start = AT + timedelta(minutes=number)
    base = {
        "packet_id": f"{of['underlying']}-{number}-0", "legs": None, "structure": "sweep", "days_to_expiry": 10, "leg_count": 1,
        "first_ts_utc": start, "last_ts_utc": start + timedelta(milliseconds=5), "fills": 3, "venues": 3, "size": 200,
        "contracts": 200, "premium_usd": 40_000.0, "net_premium_usd": 40_000.0, "vwap": 2.0, "min_price": 2.0, "max_price": 2.0,
        "first_price": 2.0, "last_price": 2.0, "buy_probability": 0.95, "side_coverage": 1.0, "nbbo_coverage": 1.0,
        "aggressor_share": 1.0, "median_quote_age_ms": 5.0, "iso_share": 1.0, "auction_share": 0.0, "cross_share": 0.0,
        "floor_share": 0.0, "open_interest_open": 10_000, "volume_before": 0, "volume_so_far": 200, "opening_probability": 0.8,
        "reasons": "",
    }  # fmt: skip
    return {**base, **{name: of[name] for name in ("underlying", "contract", "right", "expiry", "strike")}, **changes}


def profile(count: int, premium: float = 1_000.0, size: float = 2.0, day: date | None = None, **more: Any) -> pl.DataFrame:
    """`count` packets of one premium and size on a past session."""
    bins = pl.select(log_bin(pl.lit(premium)).alias("premium"), log_bin(pl.lit(size)).alias("size")).row(0)
    row = {
        "underlying": "XYZ", "unit_contracts": 1, "minutes": [600], "minute_premium_cents": [1],
        "premium_bins": [bins[0]], "premium_counts": [count], "size_bins": [bins[1]], "size_counts": [count],
    }  # fmt: skip
    return table(FLOW_PROFILES, [{**row, **more}], day or sessions.previous_session(T))


def minutes(spot: float = 100.0) -> pl.DataFrame:
    row = dict.fromkeys(FLOW_MINUTES.column_names)
    return table(FLOW_MINUTES, [{**row, "underlying": "XYZ", "ts_utc": AT + timedelta(minutes=m), "spot": spot} for m in range(60)])


def listed(*packets: dict[str, Any], **terms: Any) -> pl.DataFrame:
    """`contracts` with those of the packets, American on 100 shares where `terms` says nothing else."""
    legs = {each["contract"]: {n: each[n] for n in CALL if n != "root"} | {"root": "XYZ"} for each in packets if each["contract"]}
    return master(*({**each, "exercise": "american", **terms} for each in legs.values()))


def hits(
    *packets: dict[str, Any], past: pl.DataFrame | None = None, changed: FlowThresholds = DEFAULTS, **more: pl.DataFrame
) -> Any:
    given = pl.DataFrame(list(asdict(changed).items()), schema={"name": pl.String, "value": pl.Float64}, orient="row")
    inputs = {
        "flow_packets": table(FLOW_PACKETS, list(packets)), "flow_profiles": profile(100) if past is None else past,
        "flow_minutes": minutes(), "contracts": listed(*packets), THRESHOLDS: given, **more,
    }  # fmt: skip
    found = FLOW_HITS.conform(flow_hits(inputs, T).tables["flow_hits"], T)
    return {row["rule"]: row for row in found.rows(named=True)}


def test_a_sweep_at_its_thresholds() -> None:
    found = hits(packet())["sweep"]
    assert (found["tier"], found["direction"], found["reasons"], found["doubts"]) == ("confirmed", "bought", "", [])
    assert found["confidence"] == pytest.approx(CONFIDENCE["confirmed"])
    assert found["packet_ids"] == ["XYZ-0-0"]
    asked = json.loads(found["conditions"])
    assert asked.keys() == {"premium_usd", "fills", "premium_z", *(c.column for c in QUOTE_CONDITIONS)}
    assert asked["premium_usd"] == {"value": 40_000.0, "sense": "at least", "threshold": 40_000.0}
    assert asked["quote_age_ms"] == {"value": 5.0, "sense": "at most", "threshold": 1_000.0}
    assert found["completed_ts_utc"] == AT + timedelta(seconds=1, milliseconds=5)
    assert found["known_at_utc"] == sessions.decision_time(T)


@pytest.mark.parametrize(
    "change",
    [
        {"premium_usd": 39_999.9999},
        {"fills": 2},
        {"structure": "split"},
        {"aggressor_share": 0.5499},
        {"contract": None, "structure": "vertical"},
    ],
    ids=str,
)
def test_below_a_threshold_there_is_no_sweep(change: dict[str, Any]) -> None:
    assert "sweep" not in hits(packet(**change))


def test_a_score_below_its_threshold_is_no_sweep() -> None:
    assert "sweep" not in hits(packet(), past=profile(100, premium=35_000.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nbbo_coverage": 0.0, "aggressor_share": None, "median_quote_age_ms": None}, "no quotes beside the prints"),
        ({"nbbo_coverage": 0.4999}, "quotes beside 50.0 % of the contracts, 50% needed"),
        ({"median_quote_age_ms": 1_000.1}, "quotes are 1000.0 ms old, 1000 ms at most"),
        ({"median_quote_age_ms": None}, "the vendor does not say when its quotes were made"),
        ({"aggressor_share": None, "buy_probability": None}, "quotes do not tell the aggressor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_good_quotes_a_hit_is_not_confirmed_and_says_so(change: dict[str, Any], reason: str) -> None:
    found = hits(packet(**change))["sweep"]
    assert found["tier"] == "unconfirmed"
    assert found["reasons"].startswith(reason)
    assert found["confidence"] == pytest.approx(CONFIDENCE["confirmed"] * CONFIDENCE["unjudged"])


def test_a_block_without_quotes_is_not_confirmed_either() -> None:
    block = packet(structure="block", fills=1, size=500, contracts=500, premium_usd=200_000.0, volume_so_far=500)
    assert hits(block)["large_block"]["tier"] == "confirmed"
    bare = hits({**block, "nbbo_coverage": 0.0, "aggressor_share": None, "median_quote_age_ms": None})["large_block"]
    assert (bare["tier"], "no quotes" in bare["reasons"]) == ("unconfirmed", True)
    # A block may print inside the quotes: the aggressor's share is no condition of it.
    assert hits({**block, "aggressor_share": 0.0})["large_block"]["tier"] == "confirmed"


def test_a_score_counts_from_twelve_samples_and_is_robust_from_sixty() -> None:
    eleven = hits(packet(), past=profile(11))["sweep"]
    assert (eleven["tier"], eleven["premium_z"], eleven["baseline_packets"]) == ("unconfirmed", None, 11)
    assert eleven["reasons"] == "premium_z: 11 packets in the past, 12 needed"
    twelve = hits(packet(), past=profile(12))["sweep"]
    assert twelve["tier"] == "confirmed"
    assert twelve["confidence"] == pytest.approx(CONFIDENCE["confirmed"] * CONFIDENCE["short_baseline"])
    assert hits(packet(), past=profile(60))["sweep"]["confidence"] == pytest.approx(CONFIDENCE["confirmed"])


def test_a_robust_baseline_is_not_moved_by_a_few_giants() -> None:
    giants = profile(5, premium=4e6, day=sessions.offset(T, -2))
    many = hits(packet(), past=pl.concat([profile(95), giants]))["sweep"]
    few = hits(packet(), past=pl.concat([profile(45), giants]))
    assert many["premium_z"] > 10.0
    assert "sweep" not in few or few["sweep"]["premium_z"] < many["premium_z"] / 3


def test_the_sessions_own_packets_are_no_baseline() -> None:
    own = profile(500, premium=40_000.0, day=T)
    assert hits(packet(), past=pl.concat([profile(100), own]))["sweep"]["baseline_packets"] == 100


def test_sizes_before_a_split_are_counted_in_todays_contracts() -> None:
    spike = packet(structure="single", fills=1, size=400, contracts=400, premium_usd=20_000.0, volume_so_far=400)
    plain = hits(spike, past=profile(100, size=100.0))["spike"]["size_z"]
    assert "spike" in hits(spike, past=profile(100, size=100.0, unit_contracts=2))
    split = hits(spike, past=profile(100, size=100.0, unit_contracts=2))["spike"]["size_z"]
    assert split < plain
    assert "spike" not in hits(spike, past=profile(100, size=100.0, unit_contracts=4))


@pytest.mark.parametrize(("premium", "size", "is_hit"), [(20_000.0, 400, True), (19_999.0, 400, False), (20_000.0, 399, False)])
def test_a_spike_at_its_thresholds(premium: float, size: int, is_hit: bool) -> None:
    spike = packet(structure="single", fills=1, size=size, contracts=size, premium_usd=premium)
    assert ("spike" in hits(spike)) == is_hit


def test_buying_gathers_and_the_packet_that_completes_it_is_the_hit() -> None:
    each = [packet(i, structure="single", fills=1, size=50, contracts=50, premium_usd=20_000.0) for i in range(4)]
    sold = packet(9, structure="single", premium_usd=90_000.0, buy_probability=0.1) | {"first_ts_utc": AT, "last_ts_utc": AT}
    found = hits(*each, sold)["otm_short_dated"]
    assert found["packet_ids"] == ["XYZ-0-0", "XYZ-1-0", "XYZ-2-0"]
    assert (found["packets"], found["premium_usd"], found["size"]) == (3, 60_000.0, 150)
    assert found["completed_ts_utc"] == AT + timedelta(minutes=2, seconds=1, milliseconds=5)
    assert "otm_short_dated" not in hits(*each[:2], sold)
    near = [{**each_, "strike": 104.0, "contract": "XYZ240323C00104000"} for each_ in each]
    assert "otm_short_dated" not in hits(*near)


def test_leaps_gather_in_long_dated_contracts() -> None:
    each = [packet(i, structure="single", premium_usd=60_000.0, days_to_expiry=400) for i in range(2)]
    assert hits(*each)["leaps"]["premium_usd"] == 120_000.0
    assert "leaps" not in hits(each[0], {**each[1], "days_to_expiry": 269})


def test_one_fresh_quote_does_not_speak_for_gathered_ones_without_an_age() -> None:
    each = [packet(i, structure="single", premium_usd=60_000.0, days_to_expiry=400) for i in range(2)]
    assert hits(*each)["leaps"]["tier"] == "confirmed"
    for one, other in (each, each[::-1]):
        found = hits({**one, "median_quote_age_ms": None}, other)["leaps"]
        assert (found["tier"], found["quote_age_ms"], found["nbbo_coverage"]) == ("unconfirmed", None, 1.0)
        assert found["reasons"] == "the vendor does not say when its quotes were made"
    bare = {**each[0], "median_quote_age_ms": None, "nbbo_coverage": 0.0, "aggressor_share": None}
    assert hits(bare, each[1])["leaps"]["quote_age_ms"] == 5.0, "no quote is no old quote"


def test_volume_passes_open_interest_once() -> None:
    each = [
        packet(i, structure="single", size=300, contracts=300, open_interest_open=900, volume_so_far=300 * (i + 1))
        for i in range(6)
    ]
    found = hits(*each)["volume_above_open_interest"]
    assert found["volume_so_far"] == 1_200
    assert found["packet_ids"] == [f"XYZ-{i}-0" for i in range(4)]
    assert "volume_above_open_interest" not in hits(*each[:3])
    assert "volume_above_open_interest" not in hits(*({**one, "open_interest_open": None} for one in each))


def test_the_evidence_is_bounded() -> None:
    each = [
        packet(i, size=10, contracts=10, premium_usd=1.0, open_interest_open=1_199, volume_so_far=10 * (i + 1)) for i in range(130)
    ]
    found = hits(*each)["volume_above_open_interest"]
    assert (found["packets"], len(found["packet_ids"])) == (120, MOST_EVIDENCE)
    assert found["packet_ids"][-1] == "XYZ-119-0"


def test_negotiated_trades_by_their_marks() -> None:
    floor = packet(structure="single", premium_usd=100_000.0, floor_share=0.5)
    assert hits(floor)["negotiated_large"]["doubts"] == []
    assert "negotiated_large" not in hits({**floor, "floor_share": 0.49})
    cross = hits({**floor, "cross_share": 1.0})["negotiated_large"]
    assert cross["doubts"][0].startswith("possible_hedge")


def test_repeated_hits_must_rise() -> None:
    rising = packet(structure="repeated_hits", hits_so_far=3, fills=2, first_price=2.0, last_price=2.05, premium_usd=20_000.0)
    assert "repeated_hits_ascending" in hits(rising)
    assert "repeated_hits_ascending" not in hits({**rising, "hits_so_far": 2, "fills": 9})
    assert "repeated_hits_ascending" not in hits({**rising, "last_price": 2.0})


@pytest.mark.parametrize("structure", ["stock_tied", "other_package"])
def test_a_lone_leg_of_a_package_is_no_hit(structure: str) -> None:
    assert hits(packet(structure=structure, size=5_000, contracts=5_000, premium_usd=1e6)) == {}


def test_a_lottery_ticket_is_cheap_and_far() -> None:
    far = packet(of=leg("C", 120.0, 10), structure="single", vwap=0.5, size=500, contracts=500, premium_usd=25_000.0)
    assert "far_otm_lottery" in hits(far)
    assert "far_otm_lottery" not in hits({**far, "vwap": 0.51})
    assert "far_otm_lottery" not in hits({**far, "strike": 116.0})


def test_an_adjusted_contract_has_no_place_beside_the_spot() -> None:
    """XYZ1 delivers 10 shares: a strike of 5 asks for as much as one of 50 on a share, and the put is not far from the money."""
    cheap = {"structure": "split", "vwap": 0.3, "size": 500, "contracts": 500, "premium_usd": 15_000.0, "days_to_expiry": 1}
    put = packet(of=leg("P", 5.0, 1), **cheap)
    assert hits(put)["far_otm_lottery"]["otm_distance"] == pytest.approx(math.log(20.0))
    adjusted = listed(put, is_adjusted=True, multiplier=10.0)
    assert "far_otm_lottery" not in hits(put, contracts=adjusted)
    each = [packet(i, of=leg("P", 5.0), **{**cheap, "premium_usd": 30_000.0}) for i in range(3)]
    assert "otm_short_dated" in hits(*each)
    assert "otm_short_dated" not in hits(*each, contracts=listed(*each, is_adjusted=True))
    unknown = listed(put).clear()
    assert "far_otm_lottery" not in hits(put, contracts=unknown), "what a contract delivers that the master lacks is not known"


def test_an_adjusted_contract_is_neither_pinned_nor_deep_in_the_money() -> None:
    pin = packet(of=leg("C", 100.5, 1), days_to_expiry=1)
    assert doubts(pin, contracts=listed(pin, is_adjusted=True)) == []
    assert hits(pin, contracts=listed(pin, is_adjusted=True))["sweep"]["otm_distance"] is None
    deep = packet(of=leg("C", 85.0, 10))
    assert doubts(deep, corporate_actions=dividend_tomorrow()) == ["possible_dividend_play"]
    adjusted = listed(deep, is_adjusted=True)
    assert doubts(deep, corporate_actions=dividend_tomorrow(), contracts=adjusted) == []


def test_a_burst_gathers_within_its_interval() -> None:
    each = [packet(0, structure="single", premium_usd=10_000.0, days_to_expiry=0, size=10, contracts=10) for _ in range(5)]
    each = [{**one, "packet_id": f"XYZ-0-{i}"} for i, one in enumerate(each)]
    found = hits(*each)["zero_dte_burst"]
    assert (found["contract"], found["packets"], found["premium_usd"]) == (None, 5, 50_000.0)
    later = timedelta(minutes=5)
    moved = {**each[4], "first_ts_utc": each[4]["first_ts_utc"] + later, "last_ts_utc": each[4]["last_ts_utc"] + later}
    assert "zero_dte_burst" not in hits(*each[:4], moved)


# --- Doubts ------------------------------------------------------------------------------------------------------------------


def doubts(*packets: dict[str, Any], **more: pl.DataFrame) -> list[str]:
    return [text.split(":")[0] for text in hits(*packets, **more)["sweep"]["doubts"]]


def test_another_contract_of_the_same_size_is_a_possible_leg() -> None:
    other = packet(1, of=PUT, structure="single", premium_usd=100.0)
    beside = {name: packet()[name] + timedelta(milliseconds=900) for name in ("first_ts_utc", "last_ts_utc")}
    assert doubts(packet(), {**other, **beside}) == ["possible_leg"]
    assert doubts(packet(), {**other, **beside, "contracts": 201, "size": 201}) == []
    assert doubts(packet(), other) == []
    # A packet that was complete only later was not known then.
    assert doubts(packet(), {**other, **beside, "last_ts_utc": AT + timedelta(minutes=3)}) == []
    later = packet(of=leg("C", 110.0, 38), structure="single", premium_usd=100.0) | {"packet_id": "XYZ-0-1"}
    assert doubts(packet(), {**later, **beside}) == ["possible_leg", "possible_roll"]


@pytest.mark.parametrize("at", [-900, 900])
def test_a_leg_is_found_through_a_burst(at: int) -> None:
    """Ten more packets of the same contract and size lie between the two legs, another ten in the very same moment."""

    def moved(each: dict[str, Any], ms: int) -> dict[str, Any]:
        return each | {name: each[name] + timedelta(milliseconds=ms) for name in ("first_ts_utc", "last_ts_utc")}

    burst = [moved(packet(structure="single") | {"packet_id": f"XYZ-1-{i}"}, at * i // 12) for i in range(1, 11)]
    burst += [packet(structure="single") | {"packet_id": f"XYZ-2-{i}"} for i in range(10)]
    later = leg("C", 110.0, 38)
    put, roll = (moved(packet(of=of, structure="single") | {"packet_id": f"XYZ-{n}-0"}, at) for n, of in ((3, PUT), (4, later)))
    assert doubts(packet(), *burst) == []
    assert doubts(packet(), *burst, put) == ["possible_leg"]
    assert doubts(packet(), *burst, put, roll) == ["possible_leg", "possible_roll"]


def dividend_tomorrow(known: timedelta = timedelta(days=-9)) -> pl.DataFrame:
    event = {"underlying": "XYZ", "ex_date": sessions.next_session(T), "kind": "cash_dividend", "cash_amount_usd": 1.0}
    actions = pl.DataFrame([event], schema={**curated.CORPORATE_ACTIONS.polars_schema(), "session": pl.Date()}, orient="row")
    return actions.with_columns(known_at_utc=pl.lit(AT + known).cast(pl.Datetime("ns", "UTC")))


def test_other_doubts() -> None:
    european = master(PUT)
    assert doubts(packet(of=PUT), contracts=european) == ["possible_hedge"]
    assert doubts(packet(of=PUT, buy_probability=0.1), contracts=european) == []
    calls, puts = ({**of, "underlying": "VIX"} for of in (CALL, PUT))
    assert doubts(packet(of=calls), contracts=master(calls)) == ["possible_hedge"]
    assert doubts(packet(of=puts), contracts=master(puts)) == []
    assert doubts(packet(opening_probability=0.3)) == ["may_close"]
    pin = packet(of=leg("C", 100.5, 1), days_to_expiry=1)
    assert doubts(pin) == ["possible_expiry_pin"]
    deep = packet(of=leg("C", 85.0, 10))
    announced = dividend_tomorrow()
    assert doubts(deep, corporate_actions=announced) == ["possible_dividend_play"]
    unknown_then = dividend_tomorrow(known=timedelta(hours=9))
    assert doubts(deep, corporate_actions=unknown_then) == []
    assert hits(deep, corporate_actions=announced)["sweep"]["confidence"] == pytest.approx(
        CONFIDENCE["confirmed"] * CONFIDENCE["doubt"]
    )


# --- Thresholds --------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_that_are_asked_for() -> None:
    expected = {
        "sweep_premium_usd": 40_000, "sweep_fills": 3, "sweep_premium_z": 2, "spike_premium_usd": 20_000, "spike_size": 400,
        "spike_premium_z": 2.5, "spike_size_z": 2, "min_samples": 12, "robust_samples": 60, "nbbo_coverage": 0.5,
        "aggressor_share": 0.55, "nbbo_age_ms": 1_000,
    }  # fmt: skip
    assert {name: getattr(DEFAULTS, name) for name in expected} == expected


def test_other_thresholds_give_other_hits() -> None:
    assert "sweep" not in hits(packet(), changed=replace(DEFAULTS, sweep_fills=4.0))
    assert "sweep" in hits(packet(premium_usd=10_000.0), changed=replace(DEFAULTS, sweep_premium_usd=10_000.0))


def test_every_threshold_of_a_rule_is_a_setting() -> None:
    named = {c.threshold for rule in RULES for c in (*rule.conditions, *QUOTE_CONDITIONS) if c.threshold}
    assert named | {"min_samples", "robust_samples"} == asdict(DEFAULTS).keys()


def test_thresholds_are_settings(tmp_path: Any) -> None:
    (tmp_path / "flowlake.toml").write_text("flow_sweep_fills = 5\nflow_spike_size = 100\n", encoding="utf-8")
    settings = load_settings({"FLOWLAKE_FLOW_SPIKE_SIZE": "250.5"}, tmp_path)
    assert (settings.flow.sweep_fills, settings.flow.spike_size, settings.flow.sweep_premium_usd) == (5.0, 250.5, 40_000.0)
    assert described(settings)["flow_spike_size"] == 250.5
    assert thresholds(described(settings)) == settings.flow
    for wrong in ("-1", "many", "nan", "inf"):
        with pytest.raises(UsageError, match="flow_spike_size"):
            load_settings({"FLOWLAKE_FLOW_SPIKE_SIZE": wrong}, tmp_path)


def test_other_thresholds_make_the_hits_restatable(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), S3Access())
    index = Index(store)
    for ds, frame in (
        (FLOW_PACKETS, table(FLOW_PACKETS, [packet()])),
        (curated.CONTRACTS, listed(packet())),
        (curated.CORPORATE_ACTIONS, curated.CORPORATE_ACTIONS.empty()),
    ):
        made = ds.conform(frame.drop("session"), T)
        lineage = partitions.Lineage(
            dataset=ds.name, session=str(T), data_hash=data_hash(made), rows=made.height, known_last_utc="", step="test",
            step_version=1, schema_hash="", suite_hash="", inputs=(), inputs_key="",
        )  # fmt: skip
        publish(store, index, ds, T, partitions.encode(ds, made, {partitions.FOOTER_KEY: lineage.to_json()}))
    task = Task(by_name()["flow_hits"], T)
    plain, raised = Settings(lake=str(tmp_path)), Settings(lake=str(tmp_path), flow=replace(DEFAULTS, sweep_fills=4.0))

    def status(told: Settings, *, restate: bool = False) -> str:
        return execute(task, Context(told, Options("test", restate=restate, keep_validations=False))).status

    assert [status(plain), status(plain), status(raised), status(raised, restate=True)] == ["built", "fresh", "restatable", "built"]
    assert [status(raised), status(plain)] == ["fresh", "restatable"]


def test_the_documentation_states_every_threshold() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    for line in (line for line in text.splitlines() if "`FLOWLAKE_FLOW_" in line):
        names, values = (re.findall("`([^`]+)`", cell) for cell in line.split("|")[1:3])
        stated = {name.removeprefix("FLOWLAKE_FLOW_").lower(): float(value) for name, value in zip(names, values, strict=True)}
        assert stated == {name: getattr(DEFAULTS, name) for name in stated}
    missing = [name for name in asdict(DEFAULTS) if f"FLOWLAKE_FLOW_{name.upper()}" not in text]
    assert missing == []
