"""The synthetic market: its files against the formats, against each other and against its truth."""

from __future__ import annotations

import gzip
import io
from collections import defaultdict
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flowlake.core import sessions as calendar
from flowlake.core.errors import StorageError, UsageError
from flowlake.market import Market, MarketSpec, build, write_bucket, write_folder, write_truth
from flowlake.market.build import Simulation
from flowlake.market.clock import session_hours
from flowlake.market.listing import Listing
from flowlake.market.spec import OPEN_INTEREST, OPTION_MINUTES, OPTION_QUOTES, OPTION_TRADES, STOCK_MINUTES, session_key
from flowlake.market.universe import underlyings
from flowlake.quant import european

NEW_YORK = ZoneInfo("America/New_York")
# Thanksgiving week: a holiday on the Thursday, a half day on the Friday.
SPEC = MarketSpec(
    seed=11,
    first_session=date(2024, 11, 25),
    sessions=6,
    underlyings=6,
    episodes=4.0,
    decoys=4.0,
    trades_per_underlying_session=400,
    include_quotes=True,
    include_stock_trades=True,
    split_session=3,
)
HALF_DAY = date(2024, 11, 29)


@pytest.fixture(scope="module")
def market() -> Market:
    return build(SPEC)


@pytest.fixture(scope="module")
def bodies(market: Market) -> dict[str, bytes]:
    return {file.key: file.body for file in market.files()}


def table(bodies: dict[str, bytes], dataset: str, day: date) -> pl.DataFrame:
    return pl.read_csv(bodies[session_key(dataset, day)], schema_overrides={"conditions": pl.String, "volume": pl.Float64})


def new_york(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 10**9, UTC).astimezone(NEW_YORK)


def test_same_spec_gives_same_bytes(bodies: dict[str, bytes]) -> None:
    assert {file.key: file.body for file in build(SPEC).files()} == bodies


def test_another_seed_gives_another_tape(bodies: dict[str, bytes]) -> None:
    other = build(MarketSpec(seed=12, first_session=SPEC.first_session, sessions=1, underlyings=2))
    key = session_key(OPTION_TRADES, SPEC.first_session)
    assert next(f.body for f in other.files() if f.key == key) != bodies[key]


def test_keys_are_those_of_the_sessions_and_nothing_else(market: Market, bodies: dict[str, bytes]) -> None:
    datasets = (
        *(f"us_options_opra/{kind}" for kind in ("trades_v1", "quotes_v1", "minute_aggs_v1", "day_aggs_v1")),
        *(f"us_stocks_sip/{kind}" for kind in ("trades_v1", "minute_aggs_v1", "day_aggs_v1")),
        "reference/open_interest",
    )
    expected = {f"{d}/{day:%Y}/{day:%m}/{day:%Y-%m-%d}.csv.gz" for d in datasets for day in market.days}
    expected |= {f"reference/{name}.csv" for name in ("corporate_actions", "rates", "contract_roots", "sectors")}
    assert set(bodies) == expected
    assert date(2024, 11, 28) not in market.days
    assert all(calendar.is_session(day) for day in market.days)


def test_options_only_market_holds_options_files_only() -> None:
    spec = MarketSpec(sessions=1, underlyings=2, include_stock=False, include_reference=False)
    kinds = {file.key.rsplit("/", 3)[0] for file in build(spec).files()}
    assert kinds == {"us_options_opra/trades_v1", "us_options_opra/minute_aggs_v1", "us_options_opra/day_aggs_v1"}


@pytest.mark.parametrize(
    ("dataset", "header"),
    [
        ("us_options_opra/trades_v1", "ticker,conditions,correction,exchange,price,sip_timestamp,size"),
        (
            "us_options_opra/quotes_v1",
            "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,sequence_number,sip_timestamp",
        ),
        ("us_options_opra/minute_aggs_v1", "ticker,volume,open,close,high,low,window_start,transactions"),
        ("us_options_opra/day_aggs_v1", "ticker,volume,open,close,high,low,window_start,transactions"),
        ("us_stocks_sip/minute_aggs_v1", "ticker,volume,open,close,high,low,window_start,transactions"),
        ("us_stocks_sip/day_aggs_v1", "ticker,volume,open,close,high,low,window_start,transactions"),
        (
            "us_stocks_sip/trades_v1",
            "ticker,conditions,correction,exchange,id,participant_timestamp,price,sequence_number,sip_timestamp,size,"
            "tape,trf_id,trf_timestamp",
        ),
        ("reference/open_interest", "ticker,open_interest"),
    ],
)
def test_headers_and_order(bodies: dict[str, bytes], market: Market, dataset: str, header: str) -> None:
    for day in market.days:
        body = bodies[session_key(dataset, day)]
        assert body[4:8] == b"\0\0\0\0", "the gzip header carries no time"
        lines = gzip.decompress(body).decode().splitlines()
        assert lines[0] == header
        tickers = [line.split(",", 1)[0] for line in lines[1:]]
        assert tickers == sorted(tickers)
        assert tickers
        assert not any(".0," in line for line in lines[1:]), "whole numbers are written without a fraction"


def test_prices_are_written_as_decimals(bodies: dict[str, bytes], market: Market) -> None:
    for dataset in ("us_options_opra/trades_v1", "us_options_opra/day_aggs_v1", "us_stocks_sip/day_aggs_v1"):
        text = pl.read_csv(bodies[session_key(dataset, market.days[0])], infer_schema=False)
        for column in {"price", "open", "close", "high", "low"} & set(text.columns):
            assert text[column].str.contains(r"^\d+(\.\d{1,2})?$").all()


def test_reference_files(bodies: dict[str, bytes], market: Market) -> None:
    roots = pl.read_csv(bodies["reference/contract_roots.csv"])
    assert set(roots.filter(pl.col("underlying") == "XYN").select("root", "exercise", "settlement").rows()) == {
        ("XYN", "european", "am"),
        ("XYNW", "european", "pm"),
    }
    rates = pl.read_csv(bodies["reference/rates.csv"], try_parse_dates=True)
    assert rates["date"].unique().sort().to_list() == market.days
    assert rates["rate"].is_between(0.0, 0.1).all()
    actions = pl.read_csv(bodies["reference/corporate_actions.csv"], try_parse_dates=True)
    split = actions.filter(pl.col("kind") == "split")
    assert split.select("underlying", "ex_date", "ratio").rows() == [("SPLQ", HALF_DAY, 4)]
    assert actions.filter(pl.col("kind") == "cash_dividend")["cash_amount_usd"].gt(0).all()
    sectors = pl.read_csv(bodies["reference/sectors.csv"])
    assert sectors["underlying"].value_counts().sort("underlying").rows() == [("AVLQ", 1), ("HEXQ", 1), ("LOQA", 2), ("SPLQ", 1)]


def test_tickers_parse_and_have_not_expired(bodies: dict[str, bytes], market: Market) -> None:
    roots = set(pl.read_csv(bodies["reference/contract_roots.csv"])["root"])
    for day in market.days:
        tickers = table(bodies, OPTION_TRADES, day)["ticker"].unique()
        parts = tickers.str.extract_groups(r"^O:([A-Z]+)(\d{6})([CP])(\d{8})$").struct.unnest()
        assert parts.null_count().sum_horizontal().item() == 0
        assert set(parts["1"]) <= roots
        assert (parts["2"].str.to_date("%y%m%d") >= day).all()
        expiries = parts["2"].str.to_date("%y%m%d").unique()
        assert all(calendar.is_session(expiry) for expiry in expiries)


def test_trades_lie_within_the_session_and_half_days_end_at_one(bodies: dict[str, bytes], market: Market) -> None:
    for day in market.days:
        close = (13, 0) if day == HALF_DAY else (16, 0)
        trades = table(bodies, OPTION_TRADES, day)["sip_timestamp"]
        assert (trades % 1_000_000 == 0).all(), "older option trades have whole milliseconds"
        first, last = new_york(trades.min()), new_york(trades.max())
        assert first.date() == last.date() == day
        assert (first.hour, first.minute) >= (9, 30)
        assert (last.hour, last.minute) < close
        busiest = table(bodies, STOCK_MINUTES, day).sort("volume")["window_start"].tail(5)
        assert all((9, 30) <= (new_york(t).hour, new_york(t).minute) < close for t in busiest)


def slow_bars(rows: list[tuple[str, int, int, int, int]], span_ns: int) -> dict[tuple[str, int], tuple[int, ...]]:
    """Bars of (ticker, condition, cents, time, size) rows in file order, one row at a time."""
    no_volume, volume_only = {201, 202, 203, 204, 205, 206, 207}, {246, 247, 248}
    volume: dict[tuple[str, int], int] = defaultdict(int)
    count: dict[tuple[str, int], int] = defaultdict(int)
    prices: dict[tuple[str, int], list[int]] = defaultdict(list)
    for ticker, condition, cents, time_ns, size in rows:
        key = (ticker, time_ns // span_ns)
        if condition in no_volume:
            continue
        volume[key] += size
        count[key] += 1
        if condition not in volume_only:
            prices[key].append(cents)
    return {k: (volume[k], p[0], p[-1], max(p), min(p), count[k]) for k, p in prices.items()}


def test_bars_are_the_trades_aggregated(bodies: dict[str, bytes], market: Market) -> None:
    day_ns = 86_400 * 10**9
    for day in market.days:
        trades = table(bodies, OPTION_TRADES, day)
        rows = [
            (ticker, int(condition), round(price * 100), time_ns, size)
            for ticker, condition, price, time_ns, size in trades.select(
                "ticker", "conditions", "price", "sip_timestamp", "size"
            ).iter_rows()
        ]
        for kind, span in (("minute_aggs_v1", 60 * 10**9), ("day_aggs_v1", day_ns)):
            bars = table(bodies, f"us_options_opra/{kind}", day)
            found = {
                (ticker, start // span): (round(v), round(o * 100), round(c * 100), round(h * 100), round(low * 100), n)
                for ticker, v, o, c, h, low, start, n in bars.iter_rows()
            }
            assert len(found) == bars.height
            assert found == slow_bars(rows, span)
            if kind == "day_aggs_v1":
                midnights = {new_york(t) for t in bars["window_start"]}
                assert midnights == {datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)}


def test_minute_volumes_add_up_to_the_day(bodies: dict[str, bytes], market: Market) -> None:
    for day in market.days:
        minutes = table(bodies, OPTION_MINUTES, day).group_by("ticker").agg(pl.col("volume").sum()).sort("ticker")
        days = table(bodies, "us_options_opra/day_aggs_v1", day).select("ticker", "volume").sort("ticker")
        assert_frame_equal(minutes, days)


def test_stock_day_bar_is_the_regular_session(bodies: dict[str, bytes], market: Market) -> None:
    for day in market.days:
        minutes = table(bodies, STOCK_MINUTES, day)
        days = {row["ticker"]: row for row in table(bodies, "us_stocks_sip/day_aggs_v1", day).iter_rows(named=True)}
        assert set(days) == set(minutes["ticker"])
        assert "XYN" not in days, "an index is not on the tape of stocks"
        opened, closed = (int(f(day).timestamp()) * 10**9 for f in (calendar.open_utc, calendar.close_utc))
        assert (minutes["window_start"] < opened).any()
        assert (minutes["window_start"] >= closed).any()
        for (ticker,), bars in minutes.group_by("ticker"):
            regular = bars.filter(pl.col("window_start").is_between(opened, closed, closed="left")).sort("window_start")
            assert regular["volume"].sum() == pytest.approx(days[ticker]["volume"], abs=1e-6)
            assert regular["open"][0] == days[ticker]["open"]
            assert regular["close"][-1] == days[ticker]["close"]
            assert regular["high"].max() == days[ticker]["high"]
            assert regular["low"].min() == days[ticker]["low"]


def test_open_interest_follows_from_the_truth(bodies: dict[str, bytes], market: Market) -> None:
    trades = market.truth()["trades"]
    for before, day in zip(market.days, market.days[1:], strict=False):
        start = dict(table(bodies, OPEN_INTEREST, before).iter_rows())
        end = dict(table(bodies, OPEN_INTEREST, day).iter_rows())
        change = dict(trades.filter(pl.col("session") == day).group_by("ticker").agg(pl.col("oi_change").sum()).iter_rows())
        assert min(end.values()) >= 0
        assert max(end.values()) > 0
        for ticker, count in end.items():
            if day == HALF_DAY and ticker.startswith("O:SPLQ"):
                continue
            assert count == start.get(ticker, 0) + change.get(ticker, 0)


def test_open_interest_never_changes_by_more_than_the_volume(bodies: dict[str, bytes], market: Market) -> None:
    changes = market.truth()["trades"].group_by("session", "ticker").agg(pl.col("oi_change").sum())
    for (day,), rows in changes.group_by("session"):
        volume = table(bodies, "us_options_opra/day_aggs_v1", day).select("ticker", "volume")
        joined = rows.filter(pl.col("oi_change") != 0).join(volume, on="ticker", how="left")
        assert (joined["oi_change"].abs() <= joined["volume"]).all()
        assert joined["volume"].null_count() == 0


def test_split_divides_strikes_and_multiplies_open_interest(bodies: dict[str, bytes], market: Market) -> None:
    eve = market.days[market.days.index(HALF_DAY) - 1]
    before, after = (
        table(bodies, OPEN_INTEREST, day)
        .filter(pl.col("ticker").str.starts_with("O:SPLQ"))
        .with_columns(series=pl.col("ticker").str.head(-8), strike=pl.col("ticker").str.tail(8).cast(pl.Int64), day=pl.lit(day))
        for day in (eve, HALF_DAY)
    )
    trades = market.truth()["trades"].filter(pl.col("session") == HALF_DAY)
    change = trades.group_by("ticker").agg(pl.col("oi_change").sum())
    expected = before.with_columns(strike=pl.col("strike") // 4, opened=pl.col("open_interest") * 4)
    # A contract that expires at the close of the half day has no open interest left.
    expected = expected.filter(pl.col("series").str.slice(6, 6) != f"{HALF_DAY:%y%m%d}")
    joined = expected.select("series", "strike", "opened").join(after, on=["series", "strike"], how="left")
    joined = joined.join(change, on="ticker", how="left").with_columns(pl.col("oi_change").fill_null(0))
    assert joined.height > 100
    assert (joined["open_interest"] == joined["opened"] + joined["oi_change"]).all()
    closes = [
        table(bodies, "us_stocks_sip/day_aggs_v1", day).filter(pl.col("ticker") == "SPLQ")["close"].item()
        for day in (eve, HALF_DAY)
    ]
    assert 3.0 < closes[0] / closes[1] < 5.0


def test_truth_joins_to_the_tape(bodies: dict[str, bytes], market: Market) -> None:
    truth = market.truth()
    for day in market.days:
        trades = table(bodies, OPTION_TRADES, day)
        said = truth["trades"].filter(pl.col("session") == day)
        assert said["row"].to_list() == list(range(trades.height))
        for column in ("ticker", "sip_timestamp", "price", "size", "exchange"):
            assert said[column].to_list() == trades[column].to_list()
        assert said["condition"].cast(pl.String).to_list() == trades["conditions"].to_list()
    assert set(truth["trades"]["side"]) == {1, -1}
    assert truth["sessions"]["session"].to_list() == market.days


def test_episodes_buy_to_open_before_the_move(market: Market, bodies: dict[str, bytes]) -> None:
    truth = market.truth()
    informed = truth["episodes"].filter(pl.col("kind") == "informed")
    assert informed.height > 0
    begun = truth["trades"].filter(pl.col("episode_id").is_not_null())["episode_id"]
    assert set(begun) <= set(truth["episodes"]["episode_id"])
    for episode in informed.iter_rows(named=True):
        own = truth["trades"].filter(pl.col("episode_id") == episode["episode_id"])
        assert set(own["underlying"]) == {episode["underlying"]}
        assert set(own["session"]) == set(calendar.sessions_between(episode["first_session"], episode["last_session"])) & set(
            market.days
        )
        bought = own.filter(pl.col("side") == 1)["size"].sum() / own["size"].sum()
        assert bought > 0.6
        assert own["is_opening"].mean() > 0.9
        right = "C" if episode["direction"] > 0 else "P"
        assert set(own["ticker"].str.slice(-9, 1)) == {right}
        swept = own.filter(pl.col("condition") == 219).group_by("order_id", "session").agg(pl.col("exchange").n_unique())
        assert swept["exchange"].max() >= 3
        assert episode["move_session"] > episode["last_session"]
        assert np.sign(episode["return"]) == episode["direction"]


def test_planted_move_is_in_the_prices() -> None:
    spec = MarketSpec(seed=5, sessions=12, underlyings=8, episodes=5.0, decoys=0.0, trades_per_underlying_session=30)
    made = build(spec)
    bodies = {f.key: f.body for f in made.files()}
    closes = pl.concat(
        [table(bodies, "us_stocks_sip/day_aggs_v1", day).with_columns(session=pl.lit(day)) for day in made.days]
    ).select("session", "ticker", "close")
    signed = []
    for episode in made.truth()["episodes"].iter_rows(named=True):
        own = dict(closes.filter(pl.col("ticker") == episode["underlying"]).select("session", "close").iter_rows())
        start = calendar.previous_session(episode["move_session"])
        end = calendar.offset(episode["move_session"], episode["horizon"] - 1)
        signed.append(episode["direction"] * (own[end] / own[start] - 1.0) - abs(episode["return"]))
    assert len(signed) >= 3
    assert abs(float(np.mean(signed))) < 0.05, "what is left is the ordinary movement of a few days"


@pytest.fixture(scope="module")
def crowded() -> tuple[Market, dict[str, bytes]]:
    """A market in which most stocks have a decoy."""
    made = build(MarketSpec(seed=9, sessions=12, underlyings=16, episodes=0.0, decoys=8.0, trades_per_underlying_session=400))
    return made, {f.key: f.body for f in made.files()}


def decoys(market: Market, name: str) -> list[dict[str, object]]:
    found = market.truth()["episodes"].filter(pl.col("kind") == f"decoy:{name}").to_dicts()
    assert found, f"the market has a decoy {name}"
    return found


def test_noise_spikes_move_nothing_and_have_two_sides(crowded: tuple[Market, dict[str, bytes]]) -> None:
    market, _ = crowded
    episodes = decoys(market, "noise_spike")
    assert all(e["move_session"] is None and e["return"] == 0.0 for e in episodes)
    own = market.truth()["trades"].filter(pl.col("episode_id").is_in([e["episode_id"] for e in episodes]))
    bought = own.filter(pl.col("side") == 1)["size"].sum() / own["size"].sum()
    assert 0.3 < bought < 0.85
    assert 0.2 < own["is_opening"].mean() < 0.9


@pytest.mark.parametrize("name", ["hedged_spread", "roll"])
def test_spreads_and_rolls_are_packages(crowded: tuple[Market, dict[str, bytes]], name: str) -> None:
    market, _ = crowded
    own = market.truth()["trades"].filter(pl.col("episode_id").is_in([e["episode_id"] for e in decoys(market, name)]))
    assert own["package_id"].null_count() == 0
    assert set(own["condition"]) <= {232, 233, 235}
    assert own["size"].mean() > 3 * market.truth()["trades"]["size"].mean()
    net = own.group_by("session", "package_id").agg((pl.col("side") * pl.col("size")).sum())
    assert (net["side"] == 0).all(), "one leg is bought and the other sold"
    expiries = own.group_by("session", "package_id").agg(pl.col("ticker").str.slice(-15, 6).n_unique())["ticker"]
    assert set(expiries) == ({2} if name == "roll" else {1})


def test_rebalances_are_in_the_shares(crowded: tuple[Market, dict[str, bytes]]) -> None:
    market, bodies = crowded
    for episode in decoys(market, "rebalance"):
        volumes = {
            day: table(bodies, "us_stocks_sip/day_aggs_v1", day).filter(pl.col("ticker") == episode["underlying"])["volume"].item()
            for day in market.days
        }
        usual = float(np.median(list(volumes.values())))
        assert volumes[episode["first_session"]] > 2.0 * usual


def test_options_over_earnings_grow_dearer_until_the_event() -> None:
    spec = MarketSpec(seed=9, sessions=12, underlyings=16, decoys=8.0, trades_per_underlying_session=40)
    simulation = Simulation(spec)
    for episode in simulation.stories.until(11):
        if episode.kind != "decoy:earnings":
            continue
        carried = [episode.event_variance(i) for i in range(12)]
        assert carried[episode.last] == max(carried) > 0.0
        assert carried[episode.last + 1 :] == [0.0] * (11 - episode.last)
        assert np.all(np.diff(carried[episode.first : episode.last + 1]) > 0.0)
        break
    else:
        pytest.fail("the market has a decoy earnings")


def test_am_settled_series_stop_trading_the_day_before() -> None:
    index = next(m for m in underlyings(MarketSpec()) if m.is_index)
    thursday, friday = session_hours(date(2024, 3, 14), 0), session_hours(date(2024, 3, 14), 1)
    listing = Listing(index)
    before = {ticker[:-9] for ticker in listing.open_session(thursday, 4500.0, 0.2).tickers}
    after = {ticker[:-9] for ticker in listing.open_session(friday, 4500.0, 0.2).tickers}
    assert {"O:XYN240315", "O:XYNW240315"} <= before
    assert "O:XYN240315" not in after
    assert "O:XYNW240315" in after


def test_packages_print_all_legs_on_one_venue_at_one_time(market: Market) -> None:
    packages = market.truth()["trades"].filter(pl.col("package_id").is_not_null())
    legs = packages.group_by("session", "package_id").agg(
        pl.len(), pl.col("sip_timestamp").n_unique(), pl.col("exchange").n_unique(), pl.col("size").n_unique()
    )
    assert legs["len"].min() >= 2
    assert (legs.select("sip_timestamp", "exchange") == 1).to_numpy().all()


def test_cancels_repeat_an_earlier_print(market: Market) -> None:
    trades = market.truth()["trades"]
    key = ["session", "ticker", "exchange", "price", "size"]
    cancels = trades.filter(pl.col("condition").is_in([201, 203, 205, 207]))
    originals = trades.filter("is_cancelled")
    assert cancels.height == originals.height > 0
    joined = cancels.join(originals, on=key, suffix="_original")
    assert set(joined["row"]) == set(cancels["row"])
    assert (joined["sip_timestamp"] > joined["sip_timestamp_original"]).any()


def test_condition_shares_are_realistic(market: Market) -> None:
    shares = dict(market.truth()["trades"]["condition"].value_counts(normalize=True).iter_rows())
    assert 0.45 < shares[209] < 0.7
    assert 0.15 < shares[227] < 0.35
    assert 0.04 < sum(shares.get(c, 0.0) for c in (232, 233, 234, 235)) < 0.2
    assert 0.0 < sum(shares.get(c, 0.0) for c in (202, 204, 206)) < 0.01
    assert 0.4 < market.truth()["trades"]["size"].eq(1).mean() < 0.65


def test_prices_lie_inside_the_quote_in_force(bodies: dict[str, bytes], market: Market) -> None:
    for day in market.days[:2]:
        quotes = table(bodies, OPTION_QUOTES, day).select("ticker", "sip_timestamp", "bid_price", "ask_price")
        trades = table(bodies, OPTION_TRADES, day).filter(~pl.col("conditions").str.contains("^20[1-7]"))
        matched = trades.sort("sip_timestamp").join_asof(
            quotes.sort("sip_timestamp"), on="sip_timestamp", by="ticker", check_sortedness=False
        )
        assert matched["ask_price"].null_count() == 0
        assert (matched["price"] >= matched["bid_price"]).all()
        assert (matched["price"] <= matched["ask_price"]).all()
        assert (quotes["bid_price"] < quotes["ask_price"]).all()


def test_index_quotes_obey_parity_and_a_plausible_volatility(bodies: dict[str, bytes], market: Market) -> None:
    day = market.days[0]
    quotes = table(bodies, OPTION_QUOTES, day).sort("ticker", "sip_timestamp").group_by("ticker", maintain_order=True).last()
    parsed = quotes.filter(pl.col("ticker").str.contains(r"^O:XYNW2412(06|13|20|27)")).with_columns(
        series=pl.col("ticker").str.slice(6, 6),
        right=pl.col("ticker").str.slice(-9, 1),
        strike=pl.col("ticker").str.tail(8).cast(pl.Float64) / 1000.0,
        mid=(pl.col("bid_price") + pl.col("ask_price")) / 2.0,
        half=(pl.col("ask_price") - pl.col("bid_price")) / 2.0,
    )
    calls, puts = (parsed.filter(pl.col("right") == r) for r in "CP")
    pairs = calls.join(puts, on=["series", "strike"], suffix="_put")
    near = pairs.filter((pl.col("mid") - pl.col("mid_put")).abs() < 100.0)
    forward = near["strike"] + (near["mid"] - near["mid_put"])
    slack = near["half"] + near["half_put"] + 0.005 * (near["mid"] - near["mid_put"]).abs() + 0.1
    for (series,), rows in near.with_columns(forward=forward, slack=slack).group_by("series"):
        centre = rows["forward"].median()
        assert ((rows["forward"] - centre).abs() <= rows["slack"] + rows["slack"].median()).all(), series
        years = (date.fromisoformat(f"20{series}") - day).days / 365.0
        out = rows.filter(pl.col("strike") >= centre)
        vols = european.implied_vol(out["mid"].to_numpy(), centre, out["strike"].to_numpy(), years, 1)
        assert np.nanmin(vols) > 0.08
        assert np.nanmax(vols) < 0.5


def test_off_exchange_prints_are_among_the_stock_trades(bodies: dict[str, bytes], market: Market) -> None:
    trades = table(bodies, "us_stocks_sip/trades_v1", market.days[0])
    off = trades.filter(pl.col("exchange") == 4)
    assert 0.15 < off.height / trades.height < 0.45
    assert (off["trf_id"] != 0).all()
    assert (off["trf_timestamp"] > 0).all()
    assert (trades.filter(pl.col("exchange") != 4)["trf_id"] == 0).all()


def test_writers_agree_with_the_market(market: Market, bodies: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bucket")
    told: list[tuple[str, int]] = []
    assert write_folder(market, folder, lambda key, count: told.append((key, count))) == len(bodies)
    written = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert written == bodies
    assert [count for _, count in told] == list(range(1, len(bodies) + 1))
    put: dict[str, bytes] = {}
    write_bucket(market, put.__setitem__)
    assert put == bodies
    truth = tmp_path_factory.mktemp("truth")
    for path in write_truth(market, truth):
        assert_frame_equal(pl.read_parquet(io.BytesIO(path.read_bytes())), market.truth()[path.stem])


def test_unwritable_folder_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    blocked = tmp_path_factory.mktemp("x") / "file"
    blocked.write_text("not a folder")
    small = build(MarketSpec(sessions=1, underlyings=1, trades_per_underlying_session=20))
    with pytest.raises(StorageError, match="cannot be written"):
        write_folder(small, blocked)
    with pytest.raises(StorageError, match="cannot be written"):
        write_truth(small, blocked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_session": date(2024, 11, 28)},
        {"sessions": 0},
        {"underlyings": 401},
        {"trades_per_underlying_session": 1},
        {"episodes": -1.0},
        {"seed": -1},
    ],
)
def test_wrong_spec_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        MarketSpec(**wrong)  # type: ignore[arg-type]
