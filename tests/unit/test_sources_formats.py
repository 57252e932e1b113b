"""Every vendor's and house format, on small files written here and on real files where they are at hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import decision_time, is_session
from flowlake.datasets.model import KNOWN_AT
from flowlake.datasets.raw import CORPORATE_ACTIONS_FILE
from flowlake.sources import feeds
from unit.vendor_files import kept

NS_0930 = 1_709_649_000_000_000_000  # 2024-03-05 09:30 New York


def parse(key: str, body: str) -> pl.DataFrame:
    found = feeds.match(key)
    assert found is not None
    return feeds.parse(found.feed, key, body.encode())


def refusal(key: str, body: str) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        parse(key, body)
    return caught.value


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, pl.DataFrame]:
    """The tables of the few real files that the tests below look into."""
    keys = [
        "us_options_opra/trades_v1/2023/03/2023-03-13.csv.gz",
        "us_options_opra/quotes_v1/2023/03/2023-03-28.csv.gz",
        "us_options_opra/day_aggs_v1/2023/03/2023-03-13.csv.gz",
        "us_options_opra/minute_aggs_v1/2015/12/2015-12-28.csv.gz",
        "us_stocks_sip/trades_v1/2023/03/2023-03-28.csv.gz",
        "us_stocks_sip/minute_aggs_v1/2014/06/2014-06-06.csv.gz",
        "us_stocks_sip/day_aggs_v1/2014/06/2014-06-06.csv.gz",
        "cboe_snapshots/VIX/2026-06-12.csv.gz",
        "lean/factor_files/aapl.csv",
        "lean/factor_files/uso.csv",
        "lean/map_files/goog.csv",
        "lean/map_files/spwr.csv",
        "lean/interest-rate.csv",
    ]
    tables = {}
    for key in keys:
        found = feeds.match(key)
        assert found is not None, key
        table = feeds.parse(found.feed, key, (real_data / key).read_bytes())
        session = found.file_date or date(2021, 3, 31)
        whole = kept(found.feed.dataset.name, table, session)
        tables[key] = found.feed.dataset.conform(whole, session)
    return tables


class TestMassive:
    BARS = "ticker,volume,open,close,high,low,window_start,transactions\n"

    def test_option_quotes(self) -> None:
        key = "us_options_opra/quotes_v1/2024/03/2024-03-05.csv"
        header = "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,sequence_number,sip_timestamp\n"
        row = parse(key, f"{header}O:SPY240315C00500000,302,1.3,5,303,0,0,,{NS_0930}\n").row(0, named=True)
        assert (row["ask_price"], row["bid_price"], row["bid_size"], row["sequence_number"]) == (1.3, 0.0, 0.0, None)

    @pytest.mark.parametrize("family", ["us_options_opra", "us_stocks_sip"])
    @pytest.mark.parametrize("kind", ["minute_aggs_v1", "day_aggs_v1"])
    def test_bars(self, family: str, kind: str) -> None:
        row = parse(f"{family}/{kind}/2024/03/2024-03-05.csv", f"{self.BARS}SPY,1.5,10,11,12,9,{NS_0930},\n").row(0, named=True)
        assert (row["volume"], row["close"], row["high"], row["low"]) == (1.5, 11.0, 12.0, 9.0)
        assert row["transactions"] is None

    def test_stock_trades(self) -> None:
        key = "us_stocks_sip/trades_v1/2024/03/2024-03-05.csv"
        header = (
            "ticker,conditions,correction,exchange,id,participant_timestamp,price,sequence_number,sip_timestamp,size,tape,"
            "trf_id,trf_timestamp\n"
        )
        row = parse(key, f'{header}MSFT,"12,37",,4,7,{NS_0930},276.16,1550,{NS_0930},0.5,3,202,{NS_0930}\n').row(0, named=True)
        assert (row["conditions"], row["correction"], row["size"], row["trf_id"]) == ("12,37", None, 0.5, 202)

    def test_real_option_trades(self, real: dict[str, pl.DataFrame]) -> None:
        trades = real["us_options_opra/trades_v1/2023/03/2023-03-13.csv.gz"]
        bar = real["us_options_opra/day_aggs_v1/2023/03/2023-03-13.csv.gz"].row(0, named=True)
        assert trades.height == 62
        assert trades.drop("row").is_duplicated().sum() > 0
        assert trades.height - trades.drop("row").unique().height == 3
        assert trades["size"].sum() == bar["volume"] == 200
        assert (trades["price"].max(), trades["price"].min()) == (bar["high"], bar["low"])
        assert trades["correction"].null_count() == 62
        assert trades["participant_timestamp"].null_count() == 0

    def test_other_real_files(self, real: dict[str, pl.DataFrame]) -> None:
        quotes = real["us_options_opra/quotes_v1/2023/03/2023-03-28.csv.gz"]
        assert quotes["row"].to_list() == [0, 98], "the first of the contract and the last; nothing traded"
        minutes = real["us_options_opra/minute_aggs_v1/2015/12/2015-12-28.csv.gz"]
        assert minutes.height == 2
        assert minutes["transactions"].null_count() == 2
        stock_trades = real["us_stocks_sip/trades_v1/2023/03/2023-03-28.csv.gz"]
        assert stock_trades.height == 99
        assert stock_trades["correction"].null_count() == 99
        assert "12,37" in stock_trades["conditions"].to_list()
        days = real["us_stocks_sip/day_aggs_v1/2014/06/2014-06-06.csv.gz"]
        assert days.filter(pl.col("ticker") == "AAPL")["close"].item() == 645.57
        assert real["us_stocks_sip/minute_aggs_v1/2014/06/2014-06-06.csv.gz"].height == 1181 - 1


class TestCboe:
    KEY = "cboe_snapshots/SPX/2026-06-12.csv.gz"
    FIRST = "# spot,7431.4600,ts,2026-06-13 15:30:32\n"
    BODY = "strike,dte,cp,oi,gamma,delta,iv,bid,ask\n200.00,6,C,1926,0.0,1.0,0.0,7226.00,7245.90\n"

    def test_first_line_and_key_become_columns(self) -> None:
        row = parse(self.KEY, self.FIRST + self.BODY).row(0, named=True)
        assert (row["underlying"], row["spot"], row["captured_at"]) == ("SPX", 7431.46, "2026-06-13 15:30:32")
        assert (row["strike"], row["dte"], row["cp"], row["oi"], row["row"]) == (200.0, 6, "C", 1926, 0)

    def test_refusals(self) -> None:
        assert refusal(self.KEY, self.BODY).rule == "wrong_header"
        assert refusal(self.KEY, self.FIRST.replace("7431.4600", "high") + self.BODY).rule == "bad_number"
        assert refusal(self.KEY, self.FIRST.replace("7431.4600", "nan") + self.BODY).rule == "bad_number"
        assert refusal(self.KEY, self.FIRST.replace("2026-06-13", "2026-06-31") + self.BODY).rule == "bad_number"
        assert refusal(self.KEY, self.FIRST.replace("2026-06-13", "2026-06-11") + self.BODY).rule == "wrong_date"
        assert refusal(self.KEY, self.FIRST + self.BODY.splitlines()[0]).rule == "empty_file"
        error = refusal(self.KEY, self.FIRST + self.BODY + "x,6,C,1926,0.0,1.0,0.0,7226.00,7245.90\n")
        assert (error.rule, error.place) == ("bad_number", f"{self.KEY}, row 1")
        assert "line 4: column strike" in error.detail

    def test_real_chain(self, real: dict[str, pl.DataFrame]) -> None:
        chain = real["cboe_snapshots/VIX/2026-06-12.csv.gz"]
        assert chain["underlying"].unique().to_list() == ["VIX"]
        assert set(chain["cp"].unique()) == {"C", "P"}
        assert chain["captured_at"].n_unique() == 1


class TestHouse:
    def test_open_interest(self) -> None:
        frame = parse("reference/open_interest/2024/03/2024-03-05.csv", "ticker,open_interest\nO:SPY240315C00500000,120\n")
        assert frame["open_interest"].to_list() == [120.0]

    def test_corporate_actions_are_known_from_the_announcement_or_the_ex_date(self) -> None:
        frame = parse(
            "reference/corporate_actions.csv",
            "underlying,ex_date,kind,ratio,cash_amount_usd,new_symbol,announced_at_utc\n"
            "AAPL,2020-08-31,split,4,,,2020-07-30T20:30:00Z\n"
            "XYZ,2024-07-01,cash_dividend,,0.25,,\n"
            "FB,2022-06-09,symbol_change,,,META,2022-05-31 12:00:00.5\n",
        )
        assert frame[KNOWN_AT].to_list() == [
            datetime(2020, 7, 30, 20, 30, tzinfo=UTC),
            datetime(2024, 7, 1, 4, 0, tzinfo=UTC),
            datetime(2022, 5, 31, 12, 0, 0, 500_000, tzinfo=UTC),
        ]
        assert frame["ratio"].to_list() == [4.0, None, None]
        assert frame["new_symbol"].to_list() == [None, None, "META"]

    def test_bad_dates_and_times(self) -> None:
        header = "underlying,ex_date,kind,ratio,cash_amount_usd,new_symbol,announced_at_utc\n"
        bad_date = refusal("reference/corporate_actions.csv", header + "A,2020-02-30,split,4,,,\n")
        assert (bad_date.rule, "2020-02-30" in bad_date.detail) == ("bad_date", True)
        assert refusal("reference/corporate_actions.csv", header + "A,2020-02-03,split,4,,,soon\n").rule == "bad_time"
        elsewhere = header + "A,2020-02-03,split,4,,,2020-01-01T00:00:00-05:00\n"
        assert refusal("reference/corporate_actions.csv", elsewhere).rule == "bad_time"
        for far in ("0020-02-03", "2920-02-03"):
            assert refusal("reference/corporate_actions.csv", f"{header}A,{far},split,4,,,\n").rule == "bad_date"
            late = f"{header}A,2020-02-03,split,4,,,{far}T00:00:00Z\n"
            assert refusal("reference/corporate_actions.csv", late).rule == "bad_time"
        assert refusal("reference/corporate_actions.csv", header + "A,,split,4,,,\n").rule == "missing_value"

    def test_a_reference_file_may_have_nothing_to_say_yet(self) -> None:
        header = "underlying,ex_date,kind,ratio,cash_amount_usd,new_symbol,announced_at_utc\n"
        frame = parse("reference/corporate_actions.csv", header)
        assert (frame.height, frame.columns) == (0, [*CORPORATE_ACTIONS_FILE.column_names, KNOWN_AT])
        assert refusal("reference/corporate_actions.csv", "").rule == "empty_file"

    def test_rates_are_known_at_nine_of_the_next_session(self) -> None:
        frame = parse("reference/rates.csv", "date,tenor_days,rate\n2024-03-29,30,0.053\n2024-03-08,30,0.052\n")
        assert frame[KNOWN_AT].to_list() == [  # Good Friday and a Friday before summer time
            datetime(2024, 4, 1, 13, 0, tzinfo=UTC),
            datetime(2024, 3, 11, 13, 0, tzinfo=UTC),
        ]

    def test_contract_roots(self) -> None:
        frame = parse(
            "reference/contract_roots.csv",
            "root,underlying,multiplier,exercise,settlement,valid_from,valid_to\nSPXW,SPX,100,european,pm,2024-01-02,\n",
        )
        assert frame[KNOWN_AT].item() == datetime(2024, 1, 2, 5, 0, tzinfo=UTC)
        assert frame["valid_to"].item() is None

    def test_a_sector_is_known_from_its_publication_or_from_its_first_day(self) -> None:
        frame = parse(
            "reference/sectors.csv",
            "underlying,sector,valid_from,published_at_utc\nXYZ,Energy,2024-01-02,\nXYZ,Utilities,2024-03-04,2024-03-06T21:30:00Z\n",
        )
        assert frame[KNOWN_AT].to_list() == [datetime(2024, 1, 2, 5, 0, tzinfo=UTC), datetime(2024, 3, 6, 21, 30, tzinfo=UTC)]
        header = "underlying,sector,valid_from,published_at_utc\n"
        assert refusal("reference/sectors.csv", header + "XYZ,,2024-01-02,\n").rule == "missing_value"


class TestLean:
    def test_events_come_from_two_adjacent_rows(self) -> None:
        frame = parse(
            "lean/factor_files/xyz.csv",
            "19980102,0.90,0.25,1\n20140605,0.90,0.25,200\n20140606,0.95,0.25,100\n20200428,0.95,0.5,50\n"
            "20210104,0.95,4,10\n20501231,0.9500001,4,0\n",
        )
        assert frame.select("ex_date", "kind", "ratio", "cash_amount_usd").rows() == [
            (date(2014, 6, 6), "cash_dividend", None, 10.5263),
            (date(2014, 6, 9), "split", 2.0, None),
            (date(2020, 4, 29), "split", 8.0, None),
        ]
        assert frame["underlying"].unique().to_list() == ["XYZ"]
        assert frame[KNOWN_AT][0] == datetime(2014, 6, 6, 4, 0, tzinfo=UTC)

    def test_cutting_off_later_rows_changes_no_earlier_event(self) -> None:
        """Cumulative factors contain the future; the events must not."""
        rows = ["20100104,0.80,0.1,50", "20120103,0.84,0.1,60", "20140106,0.84,0.5,70", "20501231,1,1,0"]
        rescaled = ["20100104,0.40,0.05,50", "20120103,0.42,0.05,60", "20140106,0.42,0.25,70", "20501231,0.5,0.5,0"]
        whole = parse("lean/factor_files/a.csv", "\n".join(rows))
        assert whole.equals(parse("lean/factor_files/a.csv", "\n".join(rescaled)))

    def test_map_file(self) -> None:
        frame = parse("lean/map_files/spwr.csv", "20051117,spwr,Q\n20080929,spwr,Q\n20111116,spwra,Q\n20501231,spwr,Q")
        assert frame.select("underlying", "ex_date", "kind", "new_symbol").rows() == [
            ("SPWR", date(2008, 9, 30), "symbol_change", "SPWRA"),
            ("SPWRA", date(2011, 11, 17), "symbol_change", "SPWR"),
        ]
        assert parse("lean/map_files/twx.1.csv", "19980102,twx\n20010111,twx\n").height == 0

    def test_refusals(self) -> None:
        assert refusal("lean/factor_files/a.csv", "2014-06-06,1,1,0\n").rule == "bad_date"
        assert refusal("lean/factor_files/a.csv", "20140606,1,0,0\n").rule == "bad_number"
        assert refusal("lean/factor_files/a.csv", "20140606,1,1,0\n20140605,1,1,0\n").rule == "unsorted"
        assert refusal("lean/factor_files/a.csv", "20140606,1,1\n").rule == "ragged_row"
        assert refusal("lean/interest-rate.csv", "DAY,RATE\n2020-01-01,1\n").rule == "wrong_header"

    def test_real_events(self, real: dict[str, pl.DataFrame]) -> None:
        apple = real["lean/factor_files/aapl.csv"]
        splits = apple.filter(pl.col("kind") == "split").select("ex_date", "ratio").rows()
        assert splits[-2:] == [(date(2014, 6, 9), 7.0), (date(2020, 8, 31), 4.0)]
        paid = dict(apple.filter(pl.col("kind") == "cash_dividend").select("ex_date", "cash_amount_usd").rows())
        assert paid[date(2014, 8, 7)] == 0.47
        assert paid[date(2014, 5, 8)] == 3.29
        assert paid[date(2020, 11, 6)] == 0.205
        oil = real["lean/factor_files/uso.csv"]
        assert oil.select("ex_date", "kind", "ratio").rows() == [(date(2020, 4, 29), "split", 0.125)]
        assert real["lean/map_files/goog.csv"].select("underlying", "ex_date", "new_symbol").rows() == [
            ("GOOCV", date(2014, 4, 3), "GOOG")
        ]

    def test_real_rate(self, real: dict[str, pl.DataFrame]) -> None:
        rates = real["lean/interest-rate.csv"]
        assert rates.select("date", "rate_percent").rows()[-1] == (date(2023, 7, 27), 5.5)
        assert rates[KNOWN_AT][-1] == datetime(2023, 7, 28, 13, 0, tzinfo=UTC)


class TestAsKnown:
    def test_corporate_actions(self) -> None:
        frame = parse(
            "reference/corporate_actions.csv",
            "underlying,ex_date,kind,ratio,cash_amount_usd,new_symbol,announced_at_utc\n"
            "A,2024-03-06,split,4,,,\nB,2024-03-07,split,4,,,\nC,2024-09-03,split,4,,,2024-03-06T13:59:59Z\n",
        )
        known = feeds.as_known("corporate_actions_file", frame, date(2024, 3, 5))
        assert known["underlying"].to_list() == ["A", "C"]
        assert (known[KNOWN_AT] <= decision_time(date(2024, 3, 5))).all()

    def test_only_the_newest_known_curve(self) -> None:
        days = ["2024-03-04", "2024-03-05", "2024-03-06"]
        body = "date,tenor_days,rate\n" + "".join(f"{d},{t},0.05\n" for d in days for t in (30, 90))
        known = feeds.as_known("rates_file", parse("reference/rates.csv", body), date(2024, 3, 5))
        assert known.select("date", "tenor_days").rows() == [(date(2024, 3, 5), 30), (date(2024, 3, 5), 90)]

    def test_only_the_rate_in_force(self) -> None:
        frame = parse("lean/interest-rate.csv", "DATE,PCREDIT8\n2003-01-09,2.25\n2003-06-26,2.00\n2004-07-01,2.25\n")
        assert feeds.as_known("lean_interest_rate", frame, date(2004, 6, 30))["rate_percent"].to_list() == [2.0]
        assert feeds.as_known("lean_interest_rate", frame, date(2003, 1, 7)).height == 0

    def test_the_end_of_a_root_shows_only_when_it_has_come(self) -> None:
        body = (
            "root,underlying,multiplier,exercise,settlement,valid_from,valid_to\n"
            "GOOG1,GOOG,50,american,pm,2024-01-02,2024-03-15\nNEW,NEW,100,american,pm,2024-06-03,\n"
        )
        frame = parse("reference/contract_roots.csv", body)
        before = feeds.as_known("contract_roots_file", frame, date(2024, 3, 13))
        after = feeds.as_known("contract_roots_file", frame, date(2024, 3, 15))
        assert before.select("root", "valid_to").rows() == [("GOOG1", None)]
        assert after.select("root", "valid_to").rows() == [("GOOG1", date(2024, 3, 15))]


class TestMatch:
    @pytest.mark.parametrize(
        ("key", "dataset", "day"),
        [
            ("us_options_opra/trades_v1/2024/03/2024-03-05.csv.gz", "massive_option_trades", date(2024, 3, 5)),
            ("us_options_opra/quotes_v1/2024/03/2024-03-05.csv", "massive_option_quotes", date(2024, 3, 5)),
            ("us_options_opra/minute_aggs_v1/2024/03/2024-03-05.csv.gz", "massive_option_minute", date(2024, 3, 5)),
            ("us_options_opra/day_aggs_v1/2024/03/2024-03-05.csv.gz", "massive_option_day", date(2024, 3, 5)),
            ("us_stocks_sip/trades_v1/2024/03/2024-03-05.csv.gz", "massive_stock_trades", date(2024, 3, 5)),
            ("us_stocks_sip/minute_aggs_v1/2024/03/2024-03-05.csv.gz", "massive_stock_minute", date(2024, 3, 5)),
            ("us_stocks_sip/day_aggs_v1/2024/03/2024-03-05.csv.gz", "massive_stock_day", date(2024, 3, 5)),
            ("cboe_snapshots/SPX/2026-06-12.csv.gz", "cboe_snapshot", date(2026, 6, 12)),
            ("reference/open_interest/2024/03/2024-03-05.csv.gz", "open_interest_file", date(2024, 3, 5)),
            ("reference/corporate_actions.csv", "corporate_actions_file", None),
            ("reference/rates.csv.gz", "rates_file", None),
            ("reference/contract_roots.csv", "contract_roots_file", None),
            ("reference/sectors.csv", "sectors_file", None),
            ("lean/factor_files/tap.a.csv", "lean_events", None),
            ("lean/map_files/twx.1.csv", "lean_events", None),
            ("lean/interest-rate.csv", "lean_interest_rate", None),
        ],
    )
    def test_keys(self, key: str, dataset: str, day: date | None) -> None:
        found = feeds.match(key)
        assert found is not None
        assert (found.feed.dataset.name, found.file_date) == (dataset, day)
        assert (found.feed.kind == "reference") == (day is None)

    @pytest.mark.parametrize(
        "key",
        [
            "us_options_opra/trades_v1/2024/03/2024-02-30.csv.gz",
            "us_options_opra/trades_v1/2024/02/2024-02-30.csv.gz",
            "us_options_opra/trades_v1/2024/03/2024-04-01.csv.gz",
            "us_options_opra/trades_v1/2024/03/2024-03-05.csv.gz.bak",
            "old/us_options_opra/trades_v1/2024/03/2024-03-05.csv.gz",
            "us_stocks_sip/quotes_v1/2024/03/2024-03-05.csv.gz",
            "cboe_snapshots/ohlc_spx.csv",
            "reference/corporate_actions.txt",
            "vix-daily.csv",
        ],
    )
    def test_keys_that_feed_nothing(self, key: str) -> None:
        assert feeds.match(key) is None

    def test_every_real_file_that_matches_parses_and_conforms(self, real_data: Path) -> None:
        """All small real files, and the first of each family of large ones."""
        seen: dict[str, int] = {}
        for path in sorted(real_data.rglob("*.csv*")):
            found = feeds.match(path.relative_to(real_data).as_posix())
            if found is None or path.stat().st_size > 200_000 or seen.get(found.feed.dataset.name, 0) >= 60:
                continue
            table = feeds.parse(found.feed, path.relative_to(real_data).as_posix(), path.read_bytes())
            session = found.file_date if found.file_date and is_session(found.file_date) else date(2023, 8, 3)
            found.feed.dataset.conform(kept(found.feed.dataset.name, table, session), session)
            seen[found.feed.dataset.name] = seen.get(found.feed.dataset.name, 0) + 1
        assert len(seen) >= 9, seen
