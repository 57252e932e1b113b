"""No partition of a session knows what came after its decision time D(t): 09:00 New York on the next session.

The property is tried on the whole plan: a lake is built from a bucket, then another one from a bucket that differs in what became
known after D(t) - other markets, files that are gone, feeds that appear, rows that were added to reference files. Every partition
of the sessions up to t must have the same bytes in both.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flowlake.core.errors import LookAheadError, StorageError
from flowlake.core.sessions import decision_time, next_session, offset, sessions_between
from flowlake.core.settings import S3Access, Settings
from flowlake.datasets.curated import CORPORATE_ACTIONS, EQUITY_BARS_1D, OPEN_INTEREST, OPTION_BARS_1D
from flowlake.datasets.factors import DAILY_FACTORS
from flowlake.datasets.flow_factors import FLOW_FACTORS, VENUE_FLOW
from flowlake.datasets.model import KNOWN_AT, SESSION, Adjust, Dataset, Layer
from flowlake.datasets.raw import RATES_FILE
from flowlake.datasets.raw_vendors import VENDORS
from flowlake.datasets.registry import DATASETS
from flowlake.lake import partitions
from flowlake.lake.asof import AsOfReader, Slice, adjust_for_splits
from flowlake.lake.hashing import data_hash
from flowlake.lake.index import Index
from flowlake.lake.publish import publish
from flowlake.lake.store import Store, open_store
from flowlake.market import MarketSpec, build
from flowlake.market.s3server import S3Server, s3_server
from flowlake.pipeline.execute import Context, Options, Task, execute
from flowlake.pipeline.plan import STEPS, by_name
from flowlake.pipeline.run import Request, run
from integration.market_bucket import bucket_of, lake_hashes, settings_for

pytestmark = pytest.mark.timeout(1500)
"""Five lakes of eight sessions take their time on a busy machine."""

SPEC = MarketSpec(
    first_session=date(2024, 3, 18),
    sessions=8,
    underlyings=4,
    trades_per_underlying_session=40,
    split_session=4,
    include_quotes=True,
    include_stock_trades=True,
)
DAYS = [offset(SPEC.first_session, i) for i in range(SPEC.sessions)]
ROOTS, ACTIONS, RATES = "reference/contract_roots.csv", "reference/corporate_actions.csv", "reference/rates.csv"
SECTORS = "reference/sectors.csv"
FACTORS, NAMES, LEAN_RATE = "lean/factor_files/loqa.csv", "lean/map_files/loqa.csv", "lean/interest-rate.csv"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server(["flowlake"]) as server:
        yield server


# --- Two buckets that agree up to D(t) -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """An event of a Lean factor file: the last session before it, the raw close of that session, a ratio and a dividend."""

    before: date
    close: float
    ratio: float = 1.0
    cash: float = 0.0


def factor_file(events: list[Event]) -> bytes:
    """As Lean writes it: cumulative from the end, so that each later event changes the factors of all earlier rows."""
    price, split = 1.0, 1.0
    lines = ["20501231,1,1,0"]
    for event in sorted(events, key=lambda e: e.before, reverse=True):
        price *= 1 - event.cash / event.close
        split /= event.ratio
        lines.append(f"{event.before:%Y%m%d},{price:.7f},{split:.7f},{event.close}")
    return "".join(f"{line}\n" for line in reversed(lines)).encode()


def table(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


PAST_EVENTS = [Event(DAYS[0], 19.5, cash=0.12), Event(DAYS[2], 18.25, cash=0.11)]


def first_bucket() -> Files:
    files = {file.key: file.body for file in build(SPEC).files()}
    return files | {
        FACTORS: factor_file(PAST_EVENTS),
        NAMES: table("19980102,loqa", "20501231,loqa"),
        LEAN_RATE: table("date,PCREDIT8", "2023-07-27,5.5"),
    }


def file_session(key: str) -> date | None:
    """The session in the key; None for a reference file."""
    stem = key.rsplit("/", 1)[1].split(".")[0]
    return date.fromisoformat(stem) if stem[:2] == "20" else None


def another_future(files: Files, t: int, rng: random.Random) -> Files:
    """The bucket as it might have become, had the world gone another way after D(t)."""
    today, following, later = DAYS[t], next_session(DAYS[t]), offset(DAYS[t], 2)
    kept = {key: body for key, body in files.items() if (day := file_session(key)) is None or day <= today}
    other = build(replace(SPEC, seed=SPEC.seed + 1 + rng.randrange(1000), split_session=None)).files()
    future = {f.key: f.body for f in other if (day := file_session(f.key)) is not None and day > today}
    for key in rng.sample(sorted(future), k=len(future) // 4):
        del future[key]
    if t + 1 < len(DAYS):
        future[f"cboe_snapshots/VIX/{following}.csv"] = table(
            f"# spot,13.2,ts,{following} 22:00:00", "strike,dte,cp,oi,gamma,delta,iv,bid,ask", "13,14,C,100,0.1,0.5,0.8,1.1,1.2"
        )
    return kept | future | later_reference(files, today, following, later)


def later_reference(files: Files, today: date, following: date, later: date) -> Files:
    """Reference files with rows that became known after D(t), among them some about the past."""
    after = f"{decision_time(today) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    actions, rates, roots, sectors = (files[key].decode().splitlines() for key in (ACTIONS, RATES, ROOTS, SECTORS))
    known_rates = [line for line in rates[1:] if line.split(",")[0] <= str(today)]
    ending = [line.removesuffix(",") + f",{following}" if line.startswith("LOQA,") else line for line in roots]
    return {
        ACTIONS: table(
            *actions,
            f"SYNI,{later},split,10,,,{after}",
            f"LOQA,{DAYS[0]},split,3,,,{after}",
            f"HEXQ,{later},cash_dividend,,1.25,,",
            f"LOQA,{later},symbol_change,,,ZZZQ,{after}",
        ),
        RATES: table(rates[0], *known_rates, *(f"{following},{days},0.19" for days in (1, 30, 365))),
        ROOTS: table(*ending, f"SYNI,SYNI,50,european,am,{later},"),
        SECTORS: table(
            *sectors,
            f"SPLQ,health,{DAYS[0]},{after}",
            f"HEXQ,health,{later},",
        ),
        FACTORS: factor_file([*PAST_EVENTS, Event(following, 21.75, cash=0.4), Event(later, 22.5, ratio=7.0)]),
        NAMES: table("19980102,loqa", f"{following:%Y%m%d},loqa", "20501231,lqxx"),
        "lean/map_files/syni.csv": table(f"{following:%Y%m%d},syni", "20501231,syno"),
        LEAN_RATE: table("date,PCREDIT8", "2023-07-27,5.5", f"{following},0.25"),
    }


def build_lake(server: S3Server, name: str, files: Files, folder: Path, last: date) -> Path:
    bucket = bucket_of(server, name)
    for key, body in files.items():
        bucket.put(key, body)
    settings = settings_for(server, name, folder / "lake", folder / "scratch")
    report = run(settings, Request(DAYS[0], last))
    assert report.total("failed") == 0, [r.detail for r in report.results if r.status == "failed"]
    return folder / "lake"


def up_to(hashes: dict[str, str], last: date) -> dict[str, str]:
    return {path: sha for path, sha in hashes.items() if (day := partitions.session_of_path(path)) is not None and day <= last}


@dataclass(frozen=True)
class Built:
    files: Files
    lake: Path
    hashes: dict[str, str]


@pytest.fixture(scope="module")
def first(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Built:
    files = first_bucket()
    lake = build_lake(s3, "first", files, tmp_path_factory.mktemp("first"), DAYS[-1])
    return Built(files, lake, lake_hashes(lake))


@pytest.fixture(scope="module")
def futures(s3: S3Server, first: Built, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Lakes with another future, by the last session that they share with the first."""
    rng = random.Random(20240318)
    made = {}
    for t in (*sorted(rng.sample(range(1, 5), k=2)), 6):
        files = another_future(first.files, t, rng)
        made[t] = build_lake(s3, f"future-{t}", files, tmp_path_factory.mktemp("future"), DAYS[t + 1])
    return made


def test_the_lake_holds_every_step_of_the_plan(first: Built) -> None:
    """Else the property below would say little."""
    last = {path.split("/")[1] for path in first.hashes if f"session={DAYS[-1]}" in path}
    written = {
        name for step in STEPS for name in step.writes if DATASETS[name].layer.value in ("raw", "curated", "derived", "labels")
    }
    assert written - last == {"cboe_snapshot", *(ds.name for ds in VENDORS)}


def test_no_partition_knows_the_future(first: Built, futures: dict[int, Path]) -> None:
    assert len(futures) == 3
    for t, lake in futures.items():
        found = lake_hashes(lake)
        then, now = up_to(first.hashes, DAYS[t]), up_to(found, DAYS[t])
        assert len(then) > 20 * (t + 1)
        assert sorted(now) == sorted(then)
        assert [path for path in then if now[path] != then[path]] == []
        after = {path for path in first.hashes if f"session={DAYS[t + 1]}" in path}
        differing = {path.split("/")[1] for path in after if found.get(path) != first.hashes[path]}
        assert {"corporate_actions", "rates", "sectors_file", "contracts", "option_trades", "factor_panel"} <= differing, (
            "the futures do differ"
        )


def test_a_reference_file_that_appears_later_leaves_no_trace(s3: S3Server, first: Built, tmp_path: Path) -> None:
    """Whether a file exists that says nothing yet is itself knowledge of the future."""
    options = {
        key: body for key, body in first.files.items() if key.startswith("us_options_opra/") and file_session(key) in DAYS[:3]
    }
    without = build_lake(s3, "no-reference", options, tmp_path / "without", DAYS[1])
    later = later_reference(first.files, DAYS[1], DAYS[2], DAYS[3])
    says_nothing_yet = {
        ACTIONS: table(later[ACTIONS].decode().splitlines()[0], *later[ACTIONS].decode().splitlines()[-4:]),
        RATES: table("date,tenor_days,rate", f"{DAYS[2]},30,0.05"),
        ROOTS: table(later[ROOTS].decode().splitlines()[0], later[ROOTS].decode().splitlines()[-1]),
        SECTORS: table(later[SECTORS].decode().splitlines()[0], *later[SECTORS].decode().splitlines()[-2:]),
        "lean/map_files/syni.csv": later["lean/map_files/syni.csv"],
        LEAN_RATE: table("date,PCREDIT8", f"{DAYS[2]},0.25"),
    }
    with_them = build_lake(s3, "late-reference", options | says_nothing_yet, tmp_path / "with", DAYS[1])
    assert lake_hashes(with_them) == lake_hashes(without)


# --- What every step of the plan is given --------------------------------------------------------------------------------------


def reader(lake: Path | str, session: date) -> AsOfReader:
    store = open_store(str(lake), S3Access())
    return AsOfReader(store, Index(store), session)


def test_what_a_step_is_given_and_records_does_not_know_the_future(first: Built, futures: dict[int, Path]) -> None:
    compared = 0
    for t, lake in futures.items():
        one, other = reader(first.lake, DAYS[t]), reader(lake, DAYS[t])
        for step in STEPS:
            for read in step.reads:
                wanted = Slice(DATASETS[read.dataset], read.sessions, read.lag, read.adjust)
                assert one.record(wanted) == other.record(wanted), (step.name, read)
                mine, theirs = one.read(wanted), other.read(wanted)
                assert (mine is None) == (theirs is None)
                if mine is not None and theirs is not None:
                    compared += 1
                    assert mine.equals(theirs), (step.name, read)
                    assert not mine.height or mine.get_column(SESSION).max() <= DAYS[t]
                    assert not mine.height or mine.get_column(KNOWN_AT).max() <= decision_time(DAYS[t])
                    narrow = one.read(replace(wanted, columns=read.columns))
                    assert narrow is not None
                    assert narrow.equals(mine.select([c for c in mine.columns if c in {*(read.columns or mine.columns), SESSION}]))
    assert compared > 100
    tomorrow = [
        reader(lake, DAYS[1 + max(futures)]).record(Slice(OPTION_BARS_1D, 99)) for lake in (first.lake, futures[max(futures)])
    ]
    assert tomorrow[0] != tomorrow[1], "the record does tell different slices apart"


# --- Windowed and fitted steps, with enough history to say something -----------------------------------------------------------

TODAY = 60
LONG = sessions_between(date(2024, 1, 2), date(2024, 12, 31))[:64]
WINDOWED = (
    "factor_panel",
    "module_scores",
    "complete_outcomes",
    "fit_models",
    "label_regime",
    "score_anomalies",
    "calibrate",
    "score_signals",
)


def put(store: Store, index: Index, ds: Dataset, session: date, frame: pl.DataFrame) -> None:
    """Publish a partition as a step would, from rows that this test made."""
    made = ds.conform(frame, session)
    lineage = partitions.Lineage(
        ds.name, str(session), data_hash(made), made.height, partitions.known_last(made), "test", 1, "", "", (), data_hash(made)
    )
    publish(store, index, ds, session, partitions.encode(ds, made, {partitions.FOOTER_KEY: lineage.to_json()}))


def daily_rows(template: pl.DataFrame, position: int, world: int) -> pl.DataFrame:
    """Factors of a session that never was: those of a real one, shaken. Each session has random numbers of its own."""
    rng = np.random.default_rng([world, position])
    steps = [np.random.default_rng([0 if p <= TODAY else world, p]).normal(0, 0.02) for p in range(position + 1)]
    calm = 0.3 if position % 20 < 12 else 1.5
    shaken = []
    for column in DAILY_FACTORS.columns:
        values = template[column.name]
        if column.dtype == pl.Float64():
            upper = 1.0 if "share" in column.name else None
            shaken.append((values.fill_null(0.5) * np.exp(rng.normal(0, 0.3, template.height))).clip(upper_bound=upper))
        elif column.dtype == pl.Int64():
            shaken.append((values.fill_null(50) * np.exp(rng.normal(0, 0.5, template.height))).cast(pl.Int64))
    spot = (np.arange(template.height) + 1) * 50.0 * np.exp(sum(steps) + rng.normal(0, 0.01 * calm, template.height))
    return template.with_columns(shaken).with_columns(pl.Series("spot_close", spot))


def execute_all(lake: Path, days: list[date]) -> None:
    context = Context(Settings(lake=str(lake)), Options("test", restate=True, keep_validations=False))
    for day in days:
        for name in WINDOWED:
            result = execute(Task(by_name()[name], day), context)
            assert result.status in ("built", "fresh"), (name, day, result.detail)


@pytest.fixture(scope="module")
def template(first: Built) -> pl.DataFrame:
    return partitions.read_partition(open_store(str(first.lake), S3Access()), DAILY_FACTORS, DAYS[-1]).drop(SESSION)


def test_windowed_and_fitted_steps_do_not_see_the_future(template: pl.DataFrame, tmp_path: Path) -> None:
    """Session t is computed before there is a future, and again in a lake that already holds another one."""
    t = TODAY
    lake = tmp_path / "lake"
    store = open_store(str(lake), S3Access())
    index = Index(store)
    for position, day in enumerate(LONG[: t + 1]):
        put(store, index, DAILY_FACTORS, day, daily_rows(template, position, world=0))
        put(store, index, CORPORATE_ACTIONS, day, CORPORATE_ACTIONS.empty())
    execute_all(lake, LONG[: t + 1])
    then = lake_hashes(lake)
    today = {
        path
        for path in then
        if f"session={LONG[t]}" in path and path.startswith(("derived/", "labels/")) and "daily_factors" not in path
    }
    assert len(today) >= len(WINDOWED)
    assert_says_something(store, LONG[t])

    for position, day in enumerate(LONG):
        if position > t:
            put(store, index, DAILY_FACTORS, day, daily_rows(template, position, world=7))
            put(store, index, CORPORATE_ACTIONS, day, CORPORATE_ACTIONS.empty())
    execute_all(lake, LONG[t + 1 :])
    for path in today:
        (lake / path).unlink()
    execute_all(lake, [LONG[t]])
    now = lake_hashes(lake)
    assert len(now) > len(then)
    assert [path for path in then if now.get(path) != then[path]] == []


def assert_says_something(store: Store, session: date) -> None:
    def of(name: str) -> pl.DataFrame:
        return partitions.read_partition(store, DATASETS[name], session)

    assert of("factor_panel")["history_sessions"].min() >= 60
    assert of("module_scores")["score"].drop_nulls().len() > 0
    assert of("signals")["score"].null_count() == 0
    assert of("anomaly_scores")["percentile"].drop_nulls().len() > 0
    assert set(of("regimes")["regime"]) <= {"calm", "stressed"}
    assert of("outcomes").height > 0


# --- The reader ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "small"), S3Access())


def actions(*rows: tuple[str, date, str, float | None, str | None, datetime]) -> pl.DataFrame:
    """Corporate actions: underlying, ex-date, kind, ratio, new symbol, and when they became known."""
    schema = {
        "underlying": pl.String(),
        "ex_date": pl.Date(),
        "kind": pl.String(),
        "ratio": pl.Float64(),
        "new_symbol": pl.String(),
        KNOWN_AT: pl.Datetime("ns", "UTC"),
    }
    frame = pl.DataFrame(list(rows), schema=schema, orient="row")
    return frame.with_columns(
        pl.lit("test").alias("source"),
        pl.lit(None, dtype=pl.Float64()).alias("cash_amount_usd"),
        pl.lit(None, dtype=pl.Datetime("ns", "UTC")).alias("announced_at_utc"),
    )


def bars(*rows: tuple[str, float, int]) -> pl.DataFrame:
    """Day bars of one contract per underlying: underlying, close and strike, volume."""
    names = [row[0] for row in rows]
    prices, volumes = [row[1] for row in rows], [row[2] for row in rows]
    given: dict[str, object] = {"underlying": names, "root": names, "contract": [f"{name}240621C00100000" for name in names]}
    frame = pl.DataFrame(given | {"volume": volumes, "transactions": volumes})
    fixed = {"expiry": date(2024, 6, 21), "right": "C", "ts_utc": datetime(2024, 3, 18, 4, tzinfo=UTC)}
    priced = {c.name for c in OPTION_BARS_1D.columns if c.adjust is Adjust.PRICE}
    return frame.with_columns(*(pl.lit(v).alias(k) for k, v in fixed.items()), *(pl.Series(n, prices) for n in sorted(priced)))


def test_the_reader_refuses_later_sessions(store: Store) -> None:
    index = Index(store)
    for day in DAYS[:4]:
        put(store, index, OPTION_BARS_1D, day, bars(("SYNI", 10.0, 5)))
    of_second = AsOfReader(store, index, DAYS[1])
    assert of_second.sessions(Slice(OPTION_BARS_1D, 99)) == DAYS[:2]
    assert of_second.sessions(Slice(OPTION_BARS_1D)) == [DAYS[1]]
    assert of_second.sessions(Slice(OPTION_BARS_1D, 99, lag=1)) == [DAYS[0]]
    frame = of_second.read(Slice(OPTION_BARS_1D, 99))
    assert frame is not None
    assert frame.get_column(SESSION).to_list() == DAYS[:2]
    with pytest.raises(LookAheadError, match=f"option_bars_1d {DAYS[2]} lies after session {DAYS[1]}"):
        of_second._known(OPTION_BARS_1D, DAYS[2])
    before = AsOfReader(store, index, offset(DAYS[0], -1))
    assert before.read(Slice(OPTION_BARS_1D, 99)) is None
    assert before.record(Slice(OPTION_BARS_1D, 99)) is None


def test_the_reader_withholds_rows_that_became_known_later(store: Store) -> None:
    """A partition of t may hold rows that were known only after D(t); neither rows nor recorded hash may show them."""
    decided = decision_time(DAYS[0])
    on_time = ("SYNI", DAYS[0], "split", 2.0, None, decided)
    late = ("LOQA", DAYS[0], "split", 3.0, None, decided + timedelta(microseconds=1))
    index = Index(store)
    put(store, index, CORPORATE_ACTIONS, DAYS[0], actions(on_time))
    wanted = Slice(CORPORATE_ACTIONS)
    without = AsOfReader(store, index, DAYS[0]).record(wanted)
    put(store, index, CORPORATE_ACTIONS, DAYS[0], actions(on_time, late))
    of_today = AsOfReader(store, index, DAYS[0])
    frame = of_today.read(wanted)
    assert frame is not None
    assert frame.get_column("underlying").to_list() == ["SYNI"]
    some = of_today.read(replace(wanted, columns=("underlying",)))
    assert some is not None
    assert some.to_dict(as_series=False) == {"underlying": ["SYNI"], SESSION: [DAYS[0]]}
    assert of_today.stored(wanted, 0) is None, "what is read some rows at a time is not looked through"
    assert of_today.record(wanted) == without
    put(store, index, CORPORATE_ACTIONS, DAYS[0], actions(on_time, (*late[:5], decided)))
    assert AsOfReader(store, index, DAYS[0]).record(wanted) != without, "a row that was known does count"


def test_rows_that_are_read_as_their_turn_comes_are_those_of_the_whole(store: Store) -> None:
    index = Index(store)
    rows = bars(*((f"SYN{i % 3}", 10.0 + i, 5 + i) for i in range(9)))
    for day in DAYS[:2]:
        put(store, index, OPTION_BARS_1D, day, rows)
    of_second = AsOfReader(store, index, DAYS[1])
    wanted = Slice(OPTION_BARS_1D, columns=("underlying", "close"))
    whole, stored = of_second.read(wanted), of_second.stored(wanted, rows.height)
    assert whole is not None
    assert stored is not None
    put(store, index, OPTION_BARS_1D, DAYS[1], bars(("LATER", 1.0, 1)))
    assert stored.height == whole.height
    assert stored.get_column("close").equals(whole["close"])
    numbered = replace(stored, numbered="row")
    for start, length in ((0, 9), (0, 0), (2, 5), (8, 1)):
        assert_frame_equal(stored.slice(start, length), whole.slice(start, length))
        assert_frame_equal(numbered.slice(start, length), whole.with_row_index("row").slice(start, length))
    for refused in (replace(wanted, count=2), replace(wanted, lag=1), replace(wanted, adjust=True)):
        assert of_second.stored(refused, 1) is None
    assert of_second.stored(wanted, rows.height + 1) is None, "too few to be worth it"
    damaged = replace(stored, body=stored.body[: len(stored.body) // 2])
    with pytest.raises(StorageError, match=r"option_bars_1d.* is damaged"):
        damaged.slice(0, 1)


def test_open_interest_is_known_in_time_and_curves_of_tomorrow_are_not(first: Built) -> None:
    of_third = reader(first.lake, DAYS[2])
    interest = of_third.read(Slice(OPEN_INTEREST))
    curve = of_third.read(Slice(RATES_FILE))
    assert interest is not None
    assert curve is not None
    assert interest.get_column(KNOWN_AT).max() < decision_time(DAYS[2])
    assert curve.get_column("date").unique().to_list() == [DAYS[2]]


# --- Splits and changes of symbol ----------------------------------------------------------------------------------------------

SYMBOLS = ("AAQ", "BBQ", "CCQ", "DDQ")
POSITIONS = st.integers(0, 6)
SPLIT_EVENTS = st.lists(st.tuples(st.sampled_from(SYMBOLS), POSITIONS, st.sampled_from([2.0, 4.0, 0.5, 1.5])), max_size=4)
CHANGES = st.lists(
    st.tuples(st.sampled_from(SYMBOLS), POSITIONS, st.sampled_from(SYMBOLS)), max_size=3, unique_by=lambda change: change[:2]
)


def brought_forward(row: dict[str, object], events: list[tuple[date, str, str, float, str]], t: date) -> tuple[object, ...]:
    """The slow twin: one row carried through every day after its session up to t; the day's events act together.

    Returns the ticker, the factor of shares and the factor of contracts.
    """
    name, shares, contracts = str(row["underlying"]), 1.0, 1
    for day in sorted({e[0] for e in events}):
        if not row[SESSION] < day <= t:  # type: ignore[operator]
            continue
        renamed = {e[1]: e[4] for e in events if e[0] == day and e[2] == "symbol_change"}
        ratios = {e[1]: e[3] for e in events if e[0] == day and e[2] == "split"}
        new = renamed.get(name, name)
        ratio = ratios[name] if name in ratios else ratios.get(new, 1.0) if new not in renamed else 1.0
        name, shares, contracts = new, shares * ratio, contracts * (int(ratio) if ratio in (2.0, 4.0) else 1)
    return name, shares, contracts


def stock_bars(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows as day bars of shares."""
    shares = rows.select(c.name for c in EQUITY_BARS_1D.columns if c.name not in ("volume",)).with_columns(
        rows["volume"].cast(pl.Float64), rows[SESSION]
    )
    return shares.select(*EQUITY_BARS_1D.column_names, SESSION)


@hypothesis_settings(max_examples=60)
@given(splits=SPLIT_EVENTS, changes=CHANGES, at=st.integers(2, 6))
def test_events_with_an_ex_date_after_the_row_and_up_to_t(
    splits: list[tuple[str, int, float]], changes: list[tuple[str, int, str]], at: int
) -> None:
    days = DAYS[:7]
    unique = {(name, i): ratio for name, i, ratio in splits}
    events = [(days[i], name, "split", ratio, "") for (name, i), ratio in unique.items()]
    events += [(days[i], name, "symbol_change", 0.0, new) for name, i, new in changes if name != new]
    rows = pl.concat(
        bars(*((name, 100.0 + i, 61 + 8 * i) for name in SYMBOLS)).with_columns(pl.lit(day).alias(SESSION))
        for i, day in reversed(list(enumerate(days[: at + 1])))
    )
    known = datetime(2024, 1, 1, tzinfo=UTC)
    acting = [e for e in events if e[0] <= days[at]]
    table = actions(*((e[1], e[0], e[2], e[3] or None, e[4] or None, known) for e in acting))
    options = adjust_for_splits(rows, OPTION_BARS_1D, table)
    stocks = adjust_for_splits(stock_bars(rows), EQUITY_BARS_1D, table)
    for i, row in enumerate(rows.iter_rows(named=True)):
        name, shares, contracts = brought_forward(row, events, days[at])
        close, volume = row["close"], row["volume"]
        found = options.row(i, named=True)
        assert (found["underlying"], found["volume"]) == (name, volume * contracts)
        assert found["close"] == found["strike"] == close / contracts
        assert found["contract"] == row["contract"]
        stock = stocks.row(i, named=True)
        assert stock["underlying"] == name
        assert (stock["close"], stock["volume"]) == pytest.approx((close / shares, volume * shares), rel=1e-14)
    assert options.schema == rows.schema


def test_only_splits_between_the_row_and_t_and_known_by_then(store: Store) -> None:
    index = Index(store)
    known = decision_time(DAYS[0])
    for day in DAYS[:5]:
        put(store, index, OPTION_BARS_1D, day, bars(("SPLQ", 120.0, 10)))
    table = actions(
        ("SPLQ", DAYS[2], "split", 4.0, None, known),
        ("SPLQ", DAYS[4], "split", 3.0, None, known),
        ("SPLQ", DAYS[1], "split", 7.0, None, decision_time(DAYS[3]) + timedelta(hours=1)),
    )
    for day in DAYS[:5]:
        put(store, index, CORPORATE_ACTIONS, day, table)
    wanted = Slice(OPTION_BARS_1D, 99, adjust=True)

    def closes(t: int) -> list[float]:
        frame = AsOfReader(store, index, DAYS[t]).read(wanted)
        assert frame is not None
        return [round(close, 9) for close in frame.get_column("close").to_list()]

    assert closes(1) == [120.0, 120.0], "a split to come is known, and not in the prices"
    assert closes(2) == [30.0, 30.0, 120.0]
    assert closes(3) == [30.0, 30.0, 120.0, 120.0]
    assert closes(4) == [round(120 / 7 / 12, 9), 10.0, 40.0, 40.0, 120.0], "the late one acts once it is known"
    unadjusted = AsOfReader(store, index, DAYS[4]).read(replace(wanted, adjust=False))
    assert unadjusted is not None
    assert unadjusted.get_column("close").unique().to_list() == [120.0], "the lake keeps prices as they were"


def of_days(frame: pl.DataFrame, *days: date) -> pl.DataFrame:
    return pl.concat(frame.with_columns(pl.lit(day).alias(SESSION)) for day in days)


KNOWN = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ratio", "close", "strike", "volume"), [(7.0, 100.0, 100.0, 2_107), (1.5, 700.0, 700.0, 301), (0.1, 700.0, 700.0, 301)]
)
def test_contracts_multiply_by_whole_ratios_alone_and_shares_by_all(ratio: float, close: float, strike: float, volume: int) -> None:
    table = actions(("AAQ", DAYS[1], "split", ratio, None, KNOWN))
    before = of_days(bars(("AAQ", 700.0, 301)), DAYS[0])
    option = adjust_for_splits(before, OPTION_BARS_1D, table).row(0, named=True)
    assert (option["close"], option["strike"], option["volume"]) == (close, strike, volume)
    stock = adjust_for_splits(stock_bars(before), EQUITY_BARS_1D, table).row(0, named=True)
    assert (stock["close"], stock["volume"]) == pytest.approx((700.0 / ratio, 301 * ratio), rel=1e-14)
    empty = DAILY_FACTORS.polars_schema()
    factors = {"underlying": ["AAQ"], "spot_close": [700.0], "option_volume": [301], "stock_volume": [301.0]}
    frame = of_days(pl.DataFrame(factors | {n: [None] for n in empty if n not in factors}, schema=empty), DAYS[0])
    row = adjust_for_splits(frame, DAILY_FACTORS, table).row(0, named=True)
    assert (row["spot_close"], row["stock_volume"]) == pytest.approx((700.0 / ratio, 301 * ratio), rel=1e-14)
    assert (row["option_volume"], row["call_volume"]) == (volume, None)
    for ds, expected in ((FLOW_FACTORS, "opening_buy_call_volume"), (VENUE_FLOW, "net_volume")):
        columns = {"underlying": ["AAQ"], expected: [301.5]} | ({"net_delta_shares": [301.5]} if ds is FLOW_FACTORS else {})
        flow = adjust_for_splits(of_days(pl.DataFrame(columns), DAYS[0]), ds, table).row(0, named=True)
        assert flow[expected] == 301.5 * (volume / 301), "a count that is expected, not seen, is one of contracts too"
        assert flow.get("net_delta_shares", 301.5 * ratio) == pytest.approx(301.5 * ratio, rel=1e-14)


def test_the_unit_of_a_quantity_is_how_a_split_changes_it() -> None:
    """Whole-ratio counts and shares differ in no type: a decimal number of contracts is expected, one of shares is usual."""
    numbers_of_series = {("flow_packets", "leg_count")}
    wrong = [
        (ds.name, column.name)
        for ds in DATASETS.values()
        if "underlying" in ds.column_names and ds.layer is not Layer.RAW
        for column in ds.columns
        if (ds.name, column.name) not in numbers_of_series
        and ({"contracts": Adjust.CONTRACTS, "shares": Adjust.SHARES}.get(column.unit) is not column.adjust)
        and (column.unit in ("contracts", "shares") or column.adjust in (Adjust.CONTRACTS, Adjust.SHARES))
    ]
    assert wrong == []


@pytest.mark.parametrize("filed_under", [("AAQ",), ("BBQ",), ("AAQ", "BBQ")])
def test_a_split_on_the_day_of_a_change_of_symbol_counts_once_under_either_ticker(filed_under: tuple[str, ...]) -> None:
    splits = [(name, DAYS[2], "split", 4.0, None, KNOWN) for name in filed_under]
    table = actions(("AAQ", DAYS[2], "symbol_change", None, "BBQ", KNOWN), *splits)
    frame = pl.concat([of_days(bars(("AAQ", 100.0, 8)), DAYS[1], DAYS[0]), of_days(bars(("BBQ", 25.0, 32)), DAYS[2])])
    found = adjust_for_splits(frame, OPTION_BARS_1D, table)
    assert found.select("underlying", SESSION, "close", "volume").rows() == [
        ("BBQ", day, 25.0, 32) for day in (DAYS[1], DAYS[0], DAYS[2])
    ]


def test_a_split_of_a_ticker_that_is_given_up_that_day_is_not_that_of_its_successor() -> None:
    table = actions(
        ("GOOCV", DAYS[1], "symbol_change", None, "GOOG", KNOWN),
        ("GOOG", DAYS[1], "symbol_change", None, "GOOGL", KNOWN),
        ("GOOG", DAYS[1], "split", 2.0, None, KNOWN),
    )
    found = adjust_for_splits(of_days(bars(("GOOCV", 555.0, 5), ("GOOG", 1135.0, 11)), DAYS[0]), OPTION_BARS_1D, table)
    assert found.select("underlying", "close", "volume").rows() == [("GOOG", 555.0, 5), ("GOOGL", 567.5, 22)]


def test_a_year_of_a_market_with_many_splits_is_adjusted_at_once() -> None:
    """The frame is rewritten once, not once per event; its order, that of rows without events included, stays."""
    days = sessions_between(date(2023, 1, 3), date(2023, 12, 29))[:250]
    names = pl.DataFrame({"underlying": [f"U{i:04}" for i in range(400)]})
    frame = names.join(pl.DataFrame({SESSION: days}), how="cross").sample(fraction=1.0, shuffle=True, seed=3)
    priced = {c.name: pl.lit(64.0) for c in EQUITY_BARS_1D.columns if c.dtype == pl.Float64()}
    frame = frame.with_columns(transactions=pl.lit(1, dtype=pl.Int64), **priced).select(*EQUITY_BARS_1D.column_names, SESSION)
    table = actions(*((f"U{i:04}", days[1 + i % 240], "split", 2.0, None, KNOWN) for i in range(300)))
    found = adjust_for_splits(frame, EQUITY_BARS_1D, table)
    assert found.select("underlying", SESSION).equals(frame.select("underlying", SESSION))
    position = {day: i for i, day in enumerate(days)}
    split = [
        int(name[1:]) < 300 and position[day] < 1 + int(name[1:]) % 240 for name, day in found.select("underlying", SESSION).rows()
    ]
    assert found["close"].to_list() == [32.0 if hit else 64.0 for hit in split]
    assert found["volume"].to_list() == [128.0 if hit else 64.0 for hit in split]


def test_a_class_that_takes_over_a_ticker_is_not_mistaken_for_it(store: Store) -> None:
    """On one day GOOCV became GOOG and GOOG became GOOGL: the history of GOOG is that of GOOCV from then on."""
    index = Index(store)
    known = decision_time(offset(DAYS[0], -5))
    ex_date = DAYS[2]
    changes = actions(
        ("GOOCV", ex_date, "symbol_change", None, "GOOG", known), ("GOOG", ex_date, "symbol_change", None, "GOOGL", known)
    )
    for day in DAYS[:2]:
        put(store, index, OPTION_BARS_1D, day, bars(("GOOCV", 555.0, 5), ("GOOG", 1135.0, 11)))
    put(store, index, OPTION_BARS_1D, ex_date, bars(("GOOG", 569.0, 6), ("GOOGL", 571.0, 12)))
    for day in DAYS[:3]:
        put(store, index, CORPORATE_ACTIONS, day, changes)
    wanted = Slice(OPTION_BARS_1D, 99, adjust=True)

    def classes(day: date) -> dict[str, list[float]]:
        frame = AsOfReader(store, index, day).read(wanted)
        assert frame is not None
        grouped = frame.sort("underlying", SESSION).group_by("underlying", maintain_order=True).agg("close")
        return dict(grouped.iter_rows())

    assert classes(DAYS[1]) == {"GOOCV": [555.0] * 2, "GOOG": [1135.0] * 2}
    assert classes(ex_date) == {"GOOG": [555.0, 555.0, 569.0], "GOOGL": [1135.0, 1135.0, 571.0]}


def test_two_builds_of_the_same_files_are_equal(first: Built, tmp_path: Path) -> None:
    """The comparison above is of bytes: a copy is equal, one changed byte is not."""
    shutil.copytree(first.lake, tmp_path / "copy")
    assert lake_hashes(tmp_path / "copy") == first.hashes
    path = next(iter(first.hashes))
    body = bytearray((tmp_path / "copy" / path).read_bytes())
    body[len(body) // 2] ^= 1
    (tmp_path / "copy" / path).write_bytes(bytes(body))
    assert hashlib.sha256(bytes(body)).hexdigest() != first.hashes[path]
    assert lake_hashes(tmp_path / "copy") != first.hashes
    assert gzip.decompress(first.files[f"us_options_opra/trades_v1/{DAYS[0]:%Y/%m/%Y-%m-%d}.csv.gz"]).startswith(b"ticker,")
