"""Real sessions through the whole run: a real bucket, a real S3 server, a lake on disk.

Each market below is a handful of the real files under a prefix of its own. Where the real files hold too little past for a
rule to speak, sessions are made up from them, and the docstring says which.
"""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import QuantLib as ql  # noqa: N813

from flowlake.core.sessions import NEW_YORK, at_et, sessions_between
from flowlake.core.settings import Settings
from flowlake.datasets.registry import dataset
from flowlake.lake.asof import AsOfReader, Slice
from flowlake.lake.lake import Lake
from flowlake.lake.store import open_store
from flowlake.market.s3server import S3Server
from flowlake.pipeline.plan import select
from flowlake.pipeline.run import Report, Request, run
from flowlake.quant import american, european
from flowlake.sources.bucket import Bucket

OPTION_DAY, OPTION_MINUTE = "us_options_opra/day_aggs_v1", "us_options_opra/minute_aggs_v1"
STOCK_DAY, STOCK_MINUTE = "us_stocks_sip/day_aggs_v1", "us_stocks_sip/minute_aggs_v1"
RATE = "lean/interest-rate.csv"
Bodies = Mapping[str, bytes]


@dataclass
class Market:
    """A bucket, and the lake that runs over it have filled."""

    bucket: Bucket
    settings: Settings

    @property
    def lake(self) -> Lake:
        return Lake(open_store(self.settings.lake, self.settings.lake_access))

    def put(self, bodies: Bodies) -> None:
        for key, body in bodies.items():
            self.bucket.put(key, body)

    def run(self, first: date, last: date, *steps: str) -> Report:
        report = run(self.settings, Request(first, last, steps=select(list(steps))))
        assert [(r.step, r.session, r.detail) for r in report.results if r.status == "failed"] == []
        return report


@pytest.fixture(scope="module")
def market_of(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Bodies], Market]:
    def build(name: str, bodies: Bodies) -> Market:
        prefix = f"real-market/{name}"
        settings = s3.settings(tmp_path_factory.mktemp(name) / "lake", prefix)
        market = Market(Bucket(s3.access, "flowlake", prefix), settings)
        market.put(bodies)
        return market

    return build


def dated(folder: str, *days: date) -> list[str]:
    return [f"{folder}/{day:%Y/%m}/{day}.csv.gz" for day in days]


def files(root: Path, *keys: str) -> dict[str, bytes]:
    return {key: (root / key).read_bytes() for key in keys}


def lean_files(root: Path, *names: str) -> dict[str, bytes]:
    return files(root, *(f"lean/{kind}/{name}.csv" for kind in ("factor_files", "map_files") for name in names))


def csv_gz(header: str, lines: Sequence[str]) -> bytes:
    return gzip.compress("\n".join([header, *lines, ""]).encode(), mtime=0)


def open_interest_file(counts: Mapping[str, int]) -> bytes:
    return csv_gz("ticker,open_interest", [f"{ticker},{count}" for ticker, count in sorted(counts.items())])


def moved(body: bytes, from_day: date, to_day: date, volume_factor: float = 1.0, prefix: str = "") -> bytes:
    """A bar file as if it were of another day; of tickers with `prefix` only, volumes scaled to whole numbers."""
    shift = int((at_et(to_day, time(0)) - at_et(from_day, time(0))).total_seconds()) * 10**9
    header, *lines = gzip.decompress(body).decode().splitlines()
    names = header.split(",")
    volume, start = names.index("volume"), names.index("window_start")
    out = []
    for line in lines:
        cells = line.split(",")
        if cells[0].startswith(prefix):
            cells[volume] = str(max(1, round(float(cells[volume]) * volume_factor)))
            cells[start] = str(int(cells[start]) + shift)
            out.append(",".join(cells))
    return csv_gz(header, out)


def one(frame: pl.DataFrame) -> dict[str, object]:
    assert frame.height == 1
    return frame.row(0, named=True)


def number(row: Mapping[str, object], name: str) -> float:
    value = row[name]
    assert isinstance(value, (int, float))
    return float(value)


# --- The vendor's published samples --------------------------------------------------------------------------------

TRADES_DAY, QUOTES_DAY = date(2023, 3, 13), date(2023, 3, 28)


@pytest.fixture(scope="module")
def samples(real_data: Path, market_of: Callable[[str, Bodies], Market]) -> tuple[Market, Report]:
    keys = dated("us_options_opra/trades_v1", TRADES_DAY) + dated(OPTION_DAY, TRADES_DAY)
    keys += dated("us_options_opra/quotes_v1", QUOTES_DAY) + dated("us_stocks_sip/trades_v1", QUOTES_DAY)
    keys += dated("us_stocks_sip/quotes_v1", QUOTES_DAY)
    market = market_of("samples", files(real_data, *keys) | lean_files(real_data, "aapl", "uso"))
    return market, market.run(TRADES_DAY, QUOTES_DAY)


def test_the_sample_trades_are_the_vendors_day_bar(samples: tuple[Market, Report]) -> None:
    lake = samples[0].lake
    raw = lake.read("massive_option_trades", sessions=TRADES_DAY).collect()
    trades = lake.read("option_trades", sessions=TRADES_DAY).collect().sort("ts_utc")
    bar = one(lake.read("option_bars_1d", sessions=TRADES_DAY).collect())
    assert trades.height == raw.height == 62
    assert raw.drop("row").unique().height == 59, "three rows equal an earlier one in every field"
    assert trades["size"].sum() == bar["volume"] == 200
    assert bar["transactions"] == 62
    prices = trades["price"]
    assert [prices[0], prices.max(), prices.min(), prices[-1]] == [bar[name] for name in ("open", "high", "low", "close")]
    assert [bar[name] for name in ("open", "high", "low", "close")] == [11.82, 11.82, 8.09, 9.83]


def test_the_reconciliation_is_stored_without_a_residual(samples: tuple[Market, Report]) -> None:
    table = samples[0].lake.read("reconciliation", sessions=TRADES_DAY).collect()
    assert set(table["pair"]) == {"trades~1d"}
    assert set(table["contract"]) == {"*"}, "a contract has a row only where the sources differ"
    assert sorted(table["measure"]) == sorted(["volume", "transactions", "open", "high", "low", "close"])
    assert set(table["contracts_compared"]) == set(table["contracts_equal"]) == {1}
    volume = one(table.filter(pl.col("measure") == "volume"))
    assert (volume["left_value"], volume["right_value"], volume["residual"]) == (200.0, 200.0, 0.0)


def test_the_sample_quotes_and_stock_trades_run_through(samples: tuple[Market, Report]) -> None:
    market, report = samples
    quote = one(market.lake.read("option_quotes_eod", sessions=QUOTES_DAY).collect())
    raw = market.lake.read("massive_option_quotes", sessions=QUOTES_DAY).collect()
    last = raw.sort("sip_timestamp", "sequence_number").row(-1, named=True)
    assert raw["row"].sort().to_list() == [0, 98], "nothing of the file's 99 quotes stands before a print: the first and the last"
    assert (quote["bid"], quote["ask"]) == (last["bid_price"], last["ask_price"])
    assert market.lake.read("massive_stock_trades", sessions=QUOTES_DAY).collect().height == 99
    implied = one(market.lake.read("option_iv", sessions=QUOTES_DAY).collect())
    assert (implied["iv"], implied["quality"]) == (None, "no_spot"), "one contract alone has neither spot nor parity"
    factors = one(market.lake.read("daily_factors", sessions=QUOTES_DAY).collect())
    assert factors["option_volume"] is None, "quotes are no trades"
    assert report.exit_code == 0
    assert report.unknown_objects == 1, "no step reads stock quotes: the file is counted, not taken for something else"


def test_lean_files_give_the_splits_of_apple_and_of_the_oil_fund(samples: tuple[Market, Report]) -> None:
    actions = samples[0].lake.read("corporate_actions", sessions=QUOTES_DAY).collect()
    splits = actions.filter((pl.col("kind") == "split") & (pl.col("ex_date") > date(2014, 1, 1)))
    assert splits.select("underlying", "ex_date", "ratio").rows() == [
        ("AAPL", date(2014, 6, 9), 7.0),
        ("AAPL", date(2020, 8, 31), 4.0),
        ("USO", date(2020, 4, 29), 0.125),
    ]


# --- Apple's 7:1 split of 2014-06-09 -------------------------------------------------------------------------------

THURSDAY, FRIDAY, SPLIT_DAY = date(2014, 6, 5), date(2014, 6, 6), date(2014, 6, 9)
RATIO = 7
MADE_UP = sessions_between(date(2014, 5, 8), date(2014, 6, 4))
"""Sessions whose options are those of the Friday with other volumes: the scores need a past, and the real files have none."""
VOLUME_FACTORS = [0.3 + 0.07 * ((7 * i) % 20) for i in range(len(MADE_UP))]


def lean_open_interest(root: Path) -> dict[str, dict[tuple[str, int, str], int]]:
    """Stamp -> (right, strike in ten-thousandths, expiry) -> contracts. The stamp's figure is the prior session's close."""
    found: dict[str, dict[tuple[str, int, str], int]] = {}
    with zipfile.ZipFile(root / "lean/option/usa/daily/aapl_2014_openinterest_american.zip") as archive:
        for name in archive.namelist():
            right, strike, expiry = Path(name).stem.split("_")[-3:]
            for line in archive.read(name).decode().splitlines():
                moment, count = line.split(",")
                found.setdefault(moment[:8], {})[right, int(strike), expiry] = int(count)
    return found


def occ(contract: tuple[str, int, str]) -> str:
    right, strike, expiry = contract
    return f"O:AAPL{expiry[2:]}{right[0].upper()}{strike // 10:08d}"


def after_split(contract: tuple[str, int, str]) -> tuple[str, int, str]:
    """The contract that the split makes of it: strikes are rounded to the cent."""
    right, strike, expiry = contract
    return right, round(strike / RATIO / 100) * 100, expiry


@dataclass
class Positions:
    """House open interest files of contracts that the source holds on both sides of the split, by session."""

    by_session: dict[date, dict[tuple[str, int, str], int]]

    def total(self, session: date, outliving: date) -> int:
        return sum(n for (_, _, expiry), n in self.by_session[session].items() if expiry > f"{outliving:%Y%m%d}")

    def bodies(self) -> dict[str, bytes]:
        return {
            f"reference/open_interest/{day:%Y/%m}/{day}.csv.gz": open_interest_file({occ(c): n for c, n in counts.items()})
            for day, counts in self.by_session.items()
        }


@pytest.fixture(scope="module")
def positions(real_data: Path) -> Positions:
    stamped = lean_open_interest(real_data)
    after = stamped["20140610"]
    before = {
        day: {c: n for c, n in stamped[stamp].items() if after_split(c) in after}
        for day, stamp in ((THURSDAY, "20140606"), (FRIDAY, "20140609"))
    }
    return Positions(before | {SPLIT_DAY: after})


@pytest.fixture(scope="module")
def split(real_data: Path, positions: Positions, market_of: Callable[[str, Bodies], Market]) -> Market:
    days = sessions_between(MADE_UP[0], SPLIT_DAY)
    keys = dated(STOCK_DAY, *days)
    for folder in (OPTION_DAY, OPTION_MINUTE, STOCK_MINUTE):
        keys += dated(folder, THURSDAY, FRIDAY, SPLIT_DAY)
    bodies = files(real_data, *keys, RATE) | lean_files(real_data, "aapl", "twx") | positions.bodies()
    friday = bodies[dated(OPTION_DAY, FRIDAY)[0]]
    for day, factor in zip(MADE_UP, VOLUME_FACTORS, strict=True):
        bodies[dated(OPTION_DAY, day)[0]] = moved(friday, FRIDAY, day, factor, "O:AAPL")
    market = market_of("split", bodies)
    assert market.run(days[0], SPLIT_DAY, "ingest", "curate", "factors", "factor_panel").exit_code == 0
    assert market.run(SPLIT_DAY, SPLIT_DAY, "complete_outcomes").exit_code == 0
    return market


def panel(market: Market, session: date) -> dict[str, object]:
    return one(market.lake.read("factor_panel", sessions=session, underlyings="AAPL").collect())


def test_the_split_moves_no_return_and_no_realized_volatility(split: Market) -> None:
    before, after = panel(split, FRIDAY), panel(split, SPLIT_DAY)
    assert (before["spot_close"], after["spot_close"]) == (645.57, 93.70)
    assert after["log_return"] == pytest.approx(math.log(93.70 * RATIO / 645.57))
    closes = split.lake.read("equity_bars_1d", sessions=(MADE_UP[0], SPLIT_DAY), underlyings="AAPL").collect().sort("session")
    adjusted = closes["close"].to_numpy() / np.where((closes["session"] < SPLIT_DAY).to_numpy(), RATIO, 1)
    returns = np.diff(np.log(adjusted[-21:]))
    assert after["realized_vol_20d"] == pytest.approx(float(np.std(returns, ddof=1)) * math.sqrt(252), rel=0.03)
    assert abs(number(after, "realized_vol_20d") - number(before, "realized_vol_20d")) < 0.01
    assert abs(number(after, "atm_iv_30d") - number(before, "atm_iv_30d")) < 0.04


def robust_z(value: float, past: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    logs = np.log1p(past)
    spread = max(1.4826 * float(np.median(np.abs(logs - np.median(logs)))), 0.05)
    return (math.log1p(value) - float(np.median(logs))) / spread


def test_scores_compare_with_the_past_on_the_basis_of_the_session(split: Market) -> None:
    today = panel(split, SPLIT_DAY)
    daily = split.lake.read("daily_factors", sessions=(MADE_UP[0], FRIDAY), underlyings="AAPL").collect().sort("session")
    assert daily.height == len(MADE_UP) + 2 == today["history_sessions"]
    volumes, premiums = (daily[name].cast(pl.Float64).to_numpy() for name in ("option_volume", "premium_usd"))
    assert today["option_volume_z"] == pytest.approx(robust_z(number(today, "option_volume"), volumes * RATIO))
    assert today["premium_usd_z"] == pytest.approx(robust_z(number(today, "premium_usd"), premiums)), "money knows no split"
    assert number(today, "option_volume_z") < 0 < robust_z(number(today, "option_volume"), volumes), "unadjusted: a false alarm"
    otm = daily["otm_short_call_premium_usd"].cast(pl.Float64).to_numpy()
    assert today["otm_short_call_premium_usd_z"] == pytest.approx(robust_z(number(today, "otm_short_call_premium_usd"), otm))


def test_open_interest_changes_by_trades_and_not_by_the_split(split: Market, positions: Positions) -> None:
    before, after = panel(split, FRIDAY), panel(split, SPLIT_DAY)
    assert before["open_interest_open"] == positions.total(THURSDAY, outliving=FRIDAY)
    assert before["open_interest_close"] == positions.total(FRIDAY, outliving=FRIDAY)
    assert after["open_interest_open"] == RATIO * positions.total(FRIDAY, outliving=SPLIT_DAY)
    assert after["open_interest_close"] == positions.total(SPLIT_DAY, outliving=SPLIT_DAY)
    change = number(after, "open_interest_change")
    assert change == number(after, "open_interest_close") - number(after, "open_interest_open")
    assert abs(change) < 0.1 * number(after, "open_interest_open")
    assert abs(number(after, "oi_change_ratio")) < 1
    assert (before["gamma_exposure_oi"], after["gamma_exposure_oi"]) == ("close", "close")
    assert 0.4 < abs(number(after, "gamma_exposure_usd") / number(before, "gamma_exposure_usd")) < 2.5


def test_the_reader_brings_friday_to_the_basis_of_the_split_day(split: Market) -> None:
    lake = split.lake
    reader = AsOfReader(lake.store, lake.index, SPLIT_DAY)
    measures = {
        "option_bars_1d": ("strike", "volume"),
        "open_interest": ("strike", "open_interest_close"),
        "equity_bars_1d": ("close", "volume"),
    }
    for name, (price, quantity) in measures.items():
        read = reader.read(Slice(dataset(name), 2, adjust=True))
        assert read is not None
        adjusted = read.filter((pl.col("underlying") == "AAPL") & (pl.col("session") == FRIDAY)).sort(dataset(name).sort_by)
        printed = lake.read(name, sessions=FRIDAY, underlyings="AAPL").collect().sort(dataset(name).sort_by)
        assert adjusted.height == printed.height > 0
        assert np.allclose(adjusted[price].to_numpy() * RATIO, printed[price].to_numpy(), rtol=1e-12)
        assert np.allclose(adjusted[quantity].to_numpy(), printed[quantity].to_numpy() * RATIO, rtol=1e-12)
        today = read.filter((pl.col("underlying") == "AAPL") & (pl.col("session") == SPLIT_DAY)).drop("session")
        assert today.equals(lake.read(name, sessions=SPLIT_DAY, underlyings="AAPL").collect().select(today.columns))
    on_friday = AsOfReader(lake.store, lake.index, FRIDAY).read(Slice(dataset("equity_bars_1d"), 2, adjust=True))
    assert on_friday is not None
    closes = on_friday.filter(pl.col("underlying") == "AAPL")["close"]
    assert (closes > 600).all(), "on Friday the split is known, and not yet in the price"


def test_outcomes_across_the_split_are_returns(split: Market) -> None:
    rows = split.lake.read("outcomes", sessions=SPLIT_DAY, underlyings="AAPL").collect().sort("horizon_sessions")
    assert rows["signal_session"].to_list() == [FRIDAY, date(2014, 6, 2)]
    for row in rows.iter_rows(named=True):
        bar = one(split.lake.read("equity_bars_1d", sessions=row["signal_session"], underlyings="AAPL").collect())
        assert row["from_close_return"] == pytest.approx(93.70 * RATIO / number(bar, "close") - 1)


# --- A half day ----------------------------------------------------------------------------------------------------

FULL_DAY, HALF_DAY, CUT_DAY = date(2015, 12, 23), date(2015, 12, 24), date(2015, 12, 28)


@pytest.fixture(scope="module")
def half_day(real_data: Path, market_of: Callable[[str, Bodies], Market]) -> tuple[Market, Report]:
    """Stock minutes: those of 2015-12-23 stand for the three sessions before it, those of the half day for 2015-12-28, with other
    volumes, since a file that repeats an earlier one is a gap."""
    keys = dated(OPTION_MINUTE, FULL_DAY, HALF_DAY) + dated(OPTION_DAY, FULL_DAY, HALF_DAY)
    bodies = files(real_data, *keys, *dated(STOCK_MINUTE, FULL_DAY, HALF_DAY))
    full, half = (bodies[dated(STOCK_MINUTE, day)[0]] for day in (FULL_DAY, HALF_DAY))
    for day, factor in ((date(2015, 12, 18), 1.2), (date(2015, 12, 21), 0.9), (date(2015, 12, 22), 0.8)):
        bodies[dated(STOCK_MINUTE, day)[0]] = moved(full, FULL_DAY, day, factor)
    bodies[dated(STOCK_MINUTE, CUT_DAY)[0]] = moved(half, HALF_DAY, CUT_DAY, 0.9)
    market = market_of("half-day", bodies)
    return market, market.run(date(2015, 12, 18), CUT_DAY, "ingest", "curate", "check")


def test_a_half_day_ends_at_one_and_that_is_no_gap(half_day: tuple[Market, Report]) -> None:
    lake = half_day[0].lake
    session = one(lake.read("sessions", sessions=HALF_DAY).collect())
    assert session["is_half_day"] is True
    for name in ("equity_bars_1m", "option_bars_1m"):
        bars = lake.read(name, sessions=HALF_DAY, underlyings="GOOG").collect()
        last = bars.filter(pl.col("is_regular"))["ts_utc"].max() if "is_regular" in bars.columns else bars["ts_utc"].max()
        assert last.astimezone(NEW_YORK).time() == time(12, 59)  # type: ignore[union-attr]
    gaps = lake.read("gaps").collect()
    assert gaps.filter(pl.col("session") <= HALF_DAY).rows() == []
    cut = gaps.filter(pl.col("session") == CUT_DAY)
    assert {"missing_minutes", "early_stop"}.issuperset(cut["rule"]), "the same minutes on a full day are a gap"
    assert "GOOG" in cut["subject"].to_list()


# --- The whole chain of SPY on 2023-08-03 --------------------------------------------------------------------------

CHAIN_DAY = date(2023, 8, 3)


@pytest.fixture(scope="module")
def chain(real_data: Path, market_of: Callable[[str, Bodies], Market]) -> Market:
    keys = [key for folder in (OPTION_DAY, OPTION_MINUTE, STOCK_DAY, STOCK_MINUTE) for key in dated(folder, CHAIN_DAY)]
    market = market_of("chain", files(real_data, *keys, RATE) | lean_files(real_data, "spy"))
    assert market.run(CHAIN_DAY, CHAIN_DAY, "ingest", "curate", "factors", "factor_panel").exit_code == 0
    return market


@pytest.fixture(scope="module")
def without_open_interest(chain: Market) -> dict[str, object]:
    return one(chain.lake.read("daily_factors", sessions=CHAIN_DAY).collect())


def test_a_whole_chain_loads_with_volatilities_and_greeks(chain: Market) -> None:
    assert chain.lake.read("contracts", sessions=CHAIN_DAY).collect().height == 3_986
    assert chain.lake.read("option_bars_1m", sessions=CHAIN_DAY).collect().height == 120_520
    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect()
    assert implied.height == 3_986
    sound = implied.filter(pl.col("quality") == "ok")
    assert sound.height > 3_300
    values = ("iv", "delta", "gamma", "vega", "theta")
    assert sound.select(pl.col(values).is_null().any()).row(0) == (False,) * 5
    assert implied.filter(pl.col("quality") != "ok").select(pl.col(values).is_null().all()).row(0) == (True,) * 5
    assert ((sound["right"] == "C") == (sound["delta"] > 0)).all()


def test_without_open_interest_gamma_exposure_says_why_it_abstains(without_open_interest: dict[str, object]) -> None:
    assert without_open_interest["gamma_exposure_usd"] is None
    reasons = without_open_interest["not_available"]
    assert isinstance(reasons, list)
    assert "gamma_exposure_usd: needs open_interest" in reasons


def test_gamma_exposure_is_the_sum_over_the_contracts(chain: Market, without_open_interest: dict[str, object]) -> None:
    """Open interest made up as the day's volume: the file arrives later, and the same session takes it up."""
    bars = chain.lake.read("option_bars_1d", sessions=CHAIN_DAY).collect()
    counts = {f"O:{contract}": volume for contract, volume in bars.select("contract", "volume").iter_rows()}
    chain.put({f"reference/open_interest/2023/08/{CHAIN_DAY}.csv.gz": open_interest_file(counts)})
    assert chain.run(CHAIN_DAY, CHAIN_DAY, "ingest", "curate", "factors", "factor_panel").exit_code == 0
    row = one(chain.lake.read("daily_factors", sessions=CHAIN_DAY).collect())
    assert row["gamma_exposure_oi"] == "close"
    assert row["option_volume"] == without_open_interest["option_volume"]

    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect()
    terms = chain.lake.read("contracts", sessions=CHAIN_DAY).select("contract", "expires_utc", "multiplier").collect()
    close = at_et(CHAIN_DAY, time(16, 0))
    spot, total = number(row, "spot_close"), 0.0
    actions = chain.lake.read("corporate_actions", sessions=CHAIN_DAY, underlyings="SPY").collect()
    paid = actions.filter((pl.col("kind") == "cash_dividend") & (pl.col("ex_date") > CHAIN_DAY)).sort("ex_date")
    rows = implied.join(terms, on="contract").filter(pl.col("expiry") > CHAIN_DAY).sort("strike", "contract")
    for expiry in rows.partition_by("expiry"):
        years = (expiry["expires_utc"][0] - close).total_seconds() / (365 * 86_400)
        k = np.log(expiry["strike"].to_numpy() / expiry["forward"].cast(pl.Float64).fill_null(np.nan).to_numpy())
        call = (expiry["right"] == "C").to_numpy()
        vol = expiry["iv"].fill_null(np.nan).to_numpy()
        smile = (expiry["quality"] == "ok").to_numpy() & np.where(call, k >= 0, k < 0)
        if np.unique(k[smile]).size < 3:
            continue
        carry = float(np.median((expiry["forward"] / expiry["spot"]).to_numpy()[smile]))
        order = np.argsort(k[smile])
        moneyness = np.log(expiry["strike"].to_numpy() / (spot * carry))
        vol = np.where(np.isnan(vol), np.interp(moneyness, k[smile][order], vol[smile][order]), vol)
        strike, right = expiry["strike"].to_numpy(), np.where(call, 1, -1)
        rate = float((-expiry["discount"].log() / expiry["years"]).median())  # type: ignore[arg-type]
        # An ex-date begins with the regular session, six and a half hours before its close.
        ahead = paid.filter(pl.col("ex_date") <= expiry["expiry"][0])
        times = ((ahead["ex_date"] - CHAIN_DAY).dt.total_days().to_numpy() - 6.5 / 24) / 365
        amounts = ahead["cash_amount_usd"].to_numpy()
        held_stock = spot - float(np.sum(amounts * np.exp(-rate * times)))
        residual = rate - math.log(spot * carry / held_stock) / years
        gamma = american.greeks(spot, strike, years, vol, right, rate, residual, times, amounts).gamma
        held = np.array([counts[f"O:{contract}"] for contract in expiry["contract"]])
        total += float(np.sum(right * gamma * held * expiry["multiplier"].to_numpy() * spot**2 * 0.01))
    assert row["gamma_exposure_usd"] == pytest.approx(total, rel=1e-6)


def american_value(row: Mapping[str, object], vol: float) -> float:
    """QuantLib's value of an American option on the row's spot, forward and discount, and its European value's complement."""
    today = ql.Date(CHAIN_DAY.day, CHAIN_DAY.month, CHAIN_DAY.year)
    ql.Settings.instance().evaluationDate = today
    spot, strike, years = (number(row, name) for name in ("spot", "strike", "years"))
    days = max(1, round(years * 365))
    term = days / 365
    rate = -math.log(number(row, "discount")) / term
    dividend = rate - math.log(number(row, "forward") / spot) / term
    basis = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, dividend, basis)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate, basis)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol * math.sqrt(years / term), basis)),
    )
    kind = ql.Option.Call if row["right"] == "C" else ql.Option.Put
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.AmericanExercise(today, today + days))
    option.setPricingEngine(ql.QdFpAmericanEngine(process))
    return float(option.NPV())


def european_value(row: Mapping[str, object], vol: float) -> float:
    strike, discount = number(row, "strike"), number(row, "discount")
    kind = ql.Option.Call if row["right"] == "C" else ql.Option.Put
    return float(ql.blackFormula(kind, strike, number(row, "forward"), vol * math.sqrt(number(row, "years")), discount))


def test_volatilities_give_back_their_prices_with_early_exercise(chain: Market) -> None:
    """QuantLib's price at the contract's volatility, with the residual yield of its forward, against its own, as volatility."""
    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect()
    kept = implied.filter((pl.col("quality") == "ok") & pl.col("years").is_between(2 / 365, 90 / 365)).sort("contract")
    rows = list(kept.gather_every(9).iter_rows(named=True))
    errors = np.abs([(american_value(row, row["iv"]) - row["price"]) / row["vega"] for row in rows])
    assert len(errors) > 200
    assert np.median(errors) < 0.0001
    assert np.quantile(errors, 0.95) < 0.005
    assert errors.max() < 0.01


def test_early_exercise_makes_puts_in_the_money_agree_with_calls(chain: Market) -> None:
    """Call and put of one strike have one volatility. Read as European, a put worth exercising early shows too high a one."""
    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect().filter(pl.col("years") > 2 / 365)
    calls = implied.filter((pl.col("quality") == "ok") & (pl.col("right") == "C")).select("root", "expiry", "strike", call_iv="iv")
    puts = implied.filter((pl.col("quality") == "ok") & (pl.col("right") == "P") & (pl.col("strike") > 1.02 * pl.col("forward")))
    pairs = puts.join(calls, on=["root", "expiry", "strike"]).sort("contract")
    assert pairs.height > 100
    as_european = european.implied_vol(
        *(pairs[name].to_numpy() for name in ("price", "forward", "strike", "years")), -1, pairs["discount"]
    )
    ours = np.median(pairs["iv"] - pairs["call_iv"])
    theirs = np.nanmedian(as_european - pairs["call_iv"].to_numpy())
    assert 0 <= ours < 0.01, "prices in the money are rare and old: 0.8 points are left"
    assert theirs > ours + 0.02


def test_a_price_at_its_exercise_value_tells_no_volatility(chain: Market) -> None:
    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect()
    early = implied.filter(pl.col("quality") == "american_early_exercise")
    value = pl.when(pl.col("right") == "C").then(pl.col("spot") - pl.col("strike")).otherwise(pl.col("strike") - pl.col("spot"))
    assert early.height > 10
    assert early.select((pl.col("price") - value).abs().max()).item() <= 0.005 + 1e-9


def test_prices_below_intrinsic_value_have_no_volatility_at_all(chain: Market) -> None:
    implied = chain.lake.read("option_iv", sessions=CHAIN_DAY).collect()
    below = implied.filter((pl.col("quality") == "below_intrinsic") & (pl.col("years") > 0)).sort("contract")
    assert below.height > 100
    for row in below.gather_every(6).iter_rows(named=True):
        assert row["price"] <= american_value(row, 0.01) + 1e-6


# --- Index chains of Cboe, whose sample spans two holidays ---------------------------------------------------------

HOLIDAYS = (date(2026, 6, 19), date(2026, 7, 3))
FIRST_SNAPSHOT, LAST_SNAPSHOT = date(2026, 6, 12), date(2026, 7, 16)
SNAPSHOT_DAYS = sessions_between(FIRST_SNAPSHOT, LAST_SNAPSHOT)
OTHER_MOMENT = (date(2026, 7, 8), date(2026, 7, 13))
"""The vendor's volatilities of these days are of another moment than the quotes beside them."""
TOLERANCE = 0.0010
RATE_OF_THE_CHAINS = 0.043
"""What puts, calls and strikes of these chains say about the rate themselves: see the test of it."""


@pytest.fixture(scope="module")
def index(real_data: Path, market_of: Callable[[str, Bodies], Market]) -> Market:
    keys = [f"cboe_snapshots/{name}/{day}.csv.gz" for name in ("SPX", "VIX") for day in (*SNAPSHOT_DAYS, *HOLIDAYS)]
    rates = csv_gz("date,tenor_days,rate", [f"{date(2026, 6, day)},30,{RATE_OF_THE_CHAINS}" for day in range(1, 31)])
    market = market_of("index", files(real_data, *keys) | {"reference/rates.csv.gz": rates})
    report = market.run(FIRST_SNAPSHOT, LAST_SNAPSHOT, "ingest", "curate", "option_iv", "measure_activity", "find_gaps")
    assert report.total("quarantined") == report.refused == 0
    return market


@pytest.fixture(scope="module")
def near(index: Market) -> pl.DataFrame:
    """SPX contracts of 14 to 60 days with strikes within a tenth of the forward: `difference` from the vendor's volatility."""
    implied = index.lake.read("option_iv", underlyings="SPX").collect()
    quotes = (
        index.lake.read("option_quotes_eod", underlyings="SPX")
        .select("session", "contract", "bid", "ask", "vendor_gamma")
        .collect()
    )
    days = (pl.col("expiry") - pl.col("session")).dt.total_days()
    distance = pl.col("strike") / pl.col("forward") - 1
    return (
        implied.join(quotes, on=["session", "contract"])
        .with_columns(distance.alias("distance"), (pl.col("iv") - pl.col("vendor_iv")).alias("difference"))
        .filter(days.is_between(14, 60) & (pl.col("distance").abs() <= 0.1) & pl.col("difference").is_not_null())
    )


def test_every_index_snapshot_of_a_session_loads(index: Market) -> None:
    lake = index.lake
    for name in ("option_quotes_eod", "open_interest", "option_iv"):
        assert lake.sessions(name) == SNAPSHOT_DAYS
        counts = lake.sql(f"select underlying, count(*) as n, count(distinct (session, contract)) as d from {name} group by 1")
        assert set(counts["underlying"]) == {"SPX", "VIX"}
        assert counts["n"].equals(counts["d"].alias("n")), "SPX and SPXW are told apart"
    roots = lake.sql("select underlying, root, count(*) as n from option_quotes_eod group by all")
    assert set(roots["root"]) == {"SPX", "SPXW", "VIX", "VIXW"}
    assert roots["n"].min() > 500  # type: ignore[operator]


def test_holiday_files_and_shared_roots_are_findings(index: Market) -> None:
    gaps = index.lake.sql("select subject, session, rows, what, cure from gaps where rule = 'holiday_file' order by subject")
    assert gaps["subject"].to_list() == [str(day) for day in HOLIDAYS]
    assert gaps["session"].to_list() == [date(2026, 6, 18), date(2026, 7, 2)], "told by the session before"
    assert gaps["rows"].to_list() == [2, 2], "one file each of SPX and VIX"
    found = index.lake.sql("select session, rule, rows, what, cure from findings order by session")
    assert set(found.filter(pl.col("rule") == "holiday_file")["session"]) == {date(2026, 6, 18), date(2026, 7, 2)}
    shared = found.filter(pl.col("rule") == "root_inferred")
    assert shared["session"].to_list() == SNAPSHOT_DAYS
    inferred = index.lake.sql("select session, count(*) as n from option_quotes_eod where root_is_inferred group by 1 order by 1")
    first = one(shared.filter(pl.col("session") == SNAPSHOT_DAYS[0]))
    assert number(first, "rows") == 5_946 <= inferred["n"][0]
    assert all(found["cure"])


def test_a_chain_captured_before_the_open_is_told_and_gives_no_close(index: Market) -> None:
    """The SPX file of 2026-06-23 was captured at 08:50 New York and shows the index level of the evening before."""
    early = index.lake.sql("select session, rule from findings where rule = 'captured_before_close'")
    assert early["session"].to_list() == [date(2026, 6, 23)]
    quotes = index.lake.read("option_quotes_eod", sessions=date(2026, 6, 23), underlyings="SPX").collect()
    assert set(quotes["ts_utc"].dt.convert_time_zone("America/New_York").dt.time()) == {time(8, 50, 21)}


def test_snapshot_open_interest_is_of_the_session_before(index: Market) -> None:
    dates = index.lake.sql("select distinct session, oi_session from open_interest order by 1")
    known = dict(dates.iter_rows())
    assert known[date(2026, 6, 22)] == date(2026, 6, 18), "across the holiday"
    assert known[date(2026, 7, 6)] == date(2026, 7, 2)


def test_the_rate_is_that_of_the_chains(index: Market) -> None:
    """European options: call - put = discount x (forward - strike), so two strikes far apart give the discount without a model."""
    implied = index.lake.read("option_iv", underlyings="SPX").filter(pl.col("price_source") == "quote_mid").collect()
    near = implied.filter(
        pl.col("years").is_between(14 / 365, 60 / 365) & ((pl.col("strike") / pl.col("forward") - 1).abs() <= 0.1)
    )
    key = ["session", "root", "expiry", "strike"]
    calls, puts = (near.filter(pl.col("right") == right) for right in ("C", "P"))
    rates = []
    for pairs in calls.join(puts, on=key, suffix="_put").sort(key).partition_by("session", "root", "expiry"):
        half = pairs.height // 2
        if half >= 10:
            strike, level = pairs["strike"].to_numpy(), (pairs["price"] - pairs["price_put"]).to_numpy()
            slope = (level[half : 2 * half] - level[:half]) / (strike[half : 2 * half] - strike[:half])
            rates.append(-math.log(-np.median(slope)) / pairs["years"][0])
    assert len(rates) > 400
    assert np.median(rates) == pytest.approx(RATE_OF_THE_CHAINS, abs=0.002)


def test_index_volatilities_agree_with_the_vendor(near: pl.DataFrame) -> None:
    assert near.height > 100_000
    assert abs(near["difference"].median()) < TOLERANCE  # type: ignore[arg-type]
    assert near["difference"].abs().median() < TOLERANCE  # type: ignore[operator]
    by_day = near.group_by("session").agg(
        pl.col("difference").median().alias("median"), pl.col("difference").abs().median().alias("absolute")
    )
    assert set(by_day["session"]) == set(SNAPSHOT_DAYS)
    apart = by_day.filter((pl.col("median").abs() >= TOLERANCE) | (pl.col("absolute") >= TOLERANCE))
    assert set(apart["session"]) == set(OTHER_MOMENT)


def otm_puts_priced_within_the_quote(rows: pl.DataFrame) -> float:
    """Share whose quoted spread holds the price that the vendor's own volatility gives."""
    puts = rows.filter((pl.col("right") == "P") & (pl.col("distance") < 0))
    return float((puts["difference"].abs() <= (puts["ask"] - puts["bid"]) / 2 / puts["vega"]).mean())  # type: ignore[arg-type]


@pytest.mark.parametrize("day", OTHER_MOMENT)
def test_where_volatilities_differ_the_vendors_are_of_another_moment(near: pl.DataFrame, day: date) -> None:
    """Another convention of time would show in the vendor's gamma, which fixes the vendor's time to expiry. It agrees with ours;
    yet the vendor's volatilities do not give the prices quoted beside them, as they do on other days."""
    of_day = near.filter(pl.col("session") == day)
    money = of_day.filter((pl.col("distance").abs() < 0.01) & (pl.col("vendor_gamma") > 0))
    forward, strike, years, vol = (money[name].to_numpy() for name in ("forward", "strike", "years", "vendor_iv"))
    deviation = vol * np.sqrt(years)
    d1 = np.log(forward / strike) / deviation + deviation / 2
    gamma = np.exp(-0.5 * d1**2) / math.sqrt(2 * math.pi) / (forward * deviation)
    years_ratio = float(np.mean(money["vendor_gamma"].to_numpy() / gamma)) ** -2
    needed_ratio = float(np.median((money["iv"] / money["vendor_iv"]).to_numpy())) ** 2
    assert years_ratio == pytest.approx(1, abs=0.007)
    assert needed_ratio < 0.985
    assert otm_puts_priced_within_the_quote(of_day) < 0.05
    assert otm_puts_priced_within_the_quote(near.filter(~pl.col("session").is_in(OTHER_MOMENT))) > 0.4
