"""A step whose output changes on unchanged input must get a new version: only then do lakes that exist rebuild it.

`step_outputs.json` holds for every step its version, a hash of what it was given and a hash of what it made, on a fixed market
and, for what is fitted to a long history, on a fixed panel. After a deliberate change bump `version` in `pipeline/plan.py` and run

    FLOWLAKE_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_step_outputs.py

which writes the file and refuses where a version was forgotten. Floats are compared at five significant digits, and numbers within
texts at four: the last bits depend on the vector width of the processor. A step's own earlier output is no input here. Where a
step before it changed in the same commit, a step has other inputs, and only that step's version is asked for.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.core.sessions import sessions_between
from flowlake.datasets.model import SESSION
from flowlake.datasets.registry import DATASETS
from flowlake.lake.hashing import data_hash, json_hash
from flowlake.lake.lake import open_lake
from flowlake.market import Market
from flowlake.market.s3server import s3_server
from flowlake.pipeline.plan import STEPS, by_name
from flowlake.pipeline.step import Step
from flowlake.sources import feeds
from integration.market_bucket import fill, run_all, small_market

GOLDEN = Path(__file__).with_name("step_outputs.json")
UPDATE = os.environ.get("FLOWLAKE_UPDATE_GOLDEN") == "1"
COMMAND = "FLOWLAKE_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_step_outputs.py"
LONG = ("fit_models", "label_regime", "score_anomalies", "score_signals")
"""Steps that abstain on a few sessions: they are also given a long panel, each what the one before made of it."""
NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")

Entry = dict[str, Any]


def steady(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without what differs between processors; hashes of floats among it."""
    columns = [
        pl.col(name).round(9).round_sig_figs(5) if dtype.is_float() else pl.col(name)
        for name, dtype in frame.schema.items()
        if not name.endswith("_hash")
    ]
    rounded = frame.select(columns)
    texts = [
        pl.Series(name, [None if text is None else NUMBER.sub(lambda m: f"{float(m[0]):.4g}", text) for text in rounded[name]])
        for name, dtype in rounded.schema.items()
        if dtype == pl.String
    ]
    return rounded.with_columns(text.cast(pl.String) for text in texts).rechunk()


def steady_hash(frame: pl.DataFrame) -> str:
    return data_hash(steady(frame))


def long_panel() -> pl.DataFrame:
    """`factor_panel` of six underlyings over 80 sessions: a calm and a stressed half, scattered scores, one outlier at the end."""
    days = sessions_between(date(2023, 9, 1), date(2024, 1, 31))[-80:]
    names = [f"AB{chr(65 + i)}" for i in range(6)]
    rng = np.random.Generator(np.random.PCG64(7))
    rows = len(days) * len(names)
    daily = np.repeat(np.where(np.arange(len(days)) < 45, 0.005, 0.03), len(names))
    common = np.repeat(rng.normal(size=len(days)), len(names))
    made: dict[str, Any] = {
        "underlying": names * len(days),
        "log_return": daily * (common + 0.3 * rng.normal(size=rows)),
        "realized_vol_20d": daily * 16 * np.exp(0.1 * rng.normal(size=rows)),
        SESSION: np.repeat(days, len(names)).tolist(),
    }
    panel = DATASETS["factor_panel"]
    for column in panel.columns:
        if column.name in made:
            continue
        if column.dtype.is_float():
            values = rng.normal(size=rows) if column.name.endswith("_z") else np.abs(rng.normal(size=rows)) + 0.5
            if column.name.endswith("_z"):
                values[-1] = 8.0
            made[column.name] = values
        elif column.dtype.is_integer():
            made[column.name] = rng.integers(60, 5000, size=rows)
        else:
            made[column.name] = pl.Series([None] * rows, dtype=column.dtype)
    frame = pl.DataFrame(made)
    return pl.concat(
        panel.conform(frame.filter(pl.col(SESSION) == day), day).with_columns(pl.lit(day, dtype=pl.Date).alias(SESSION))
        for day in days
    )


def long_outputs(panel: pl.DataFrame) -> dict[str, str]:
    """Step -> hash of what the steps that need a history make of the last session of the panel."""
    session = panel.get_column(SESSION).max()
    assert isinstance(session, date)
    frames = {"factor_panel": panel}
    hashes = {}
    for name in LONG:
        made = by_name()[name].load()(frames, session).tables
        typed = {n: DATASETS[n].conform(table, session) for n, table in made.items()}
        hashes[name] = json_hash([[n, steady_hash(table)] for n, table in sorted(typed.items())])
        frames |= {n: t.with_columns(pl.lit(session, dtype=pl.Date).alias(SESSION)) for n, t in typed.items()}
    assert frames["models"].get_column("is_fitted").all(), "the panel is long enough for every model"
    assert frames["signals"].get_column("score").drop_nulls().len() > 0
    return hashes


@pytest.fixture(scope="module")
def market() -> Market:
    return small_market(
        sessions=3, underlyings=4, split_session=1, trades_per_underlying_session=60, include_quotes=True, include_stock_trades=True
    )


@pytest.fixture(scope="module")
def entries(market: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """Step -> version, hash of inputs, hash of outputs, as the code is now."""
    folder = tmp_path_factory.mktemp("golden")
    with s3_server(["flowlake"]) as server:
        settings = fill(server, "golden", market, folder / "lake")
        assert run_all(settings, market).exit_code == 0
    lake = open_lake(settings=settings)
    of_dataset = {
        name: steady_hash(lake.read(name).collect())
        for name in sorted({n for step in STEPS for n in (*step.writes, *(read.dataset for read in step.reads))})
    }
    files = bucket_hashes(market)
    panel = long_panel()
    long = long_outputs(panel)
    return {step.name: _entry(step, of_dataset, files, {"panel": steady_hash(panel), **long}) for step in STEPS}


def bucket_hashes(market: Market) -> dict[str, list[list[str]]]:
    """Raw dataset -> key and hash of the rows of each file that feeds it; the bytes of a gzip file depend on the library."""
    found: dict[str, list[list[str]]] = {}
    for file in market.files():
        match = feeds.match(file.key)
        if match is not None:
            body = gzip.decompress(file.body) if file.key.endswith(".gz") else file.body
            found.setdefault(match.feed.dataset.name, []).append([file.key, json_hash(body.hex())])
    return found


def _entry(step: Step, of_dataset: dict[str, str], files: dict[str, list[list[str]]], long: dict[str, str]) -> Entry:
    given: list[Any] = files.get(step.writes[0], []) if step.is_ingest else _of(_read(step), of_dataset)
    made = _of(step.writes, of_dataset)
    if step.name in LONG:
        given = [*given, long["panel"], *(long[name] for name in LONG[: LONG.index(step.name)])]
        made = [*made, long[step.name]]
    return {"version": step.version, "inputs": json_hash(given), "outputs": json_hash(made)}


def _read(step: Step) -> list[str]:
    return sorted({read.dataset for read in step.reads} - set(step.writes))


def _of(names: Iterable[str], of_dataset: dict[str, str]) -> list[list[str]]:
    return [[name, of_dataset[name]] for name in names]


def golden() -> dict[str, Entry]:
    found: dict[str, Entry] = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    return found


def complaint(name: str, now: Entry, then: Entry | None) -> str:
    """What is wrong with a step's version; empty where nothing is."""
    if then is None or now == then:
        return ""
    if now["version"] < then["version"]:
        return f"the version of step {name} went back from {then['version']} to {now['version']} in pipeline/plan.py"
    if now["version"] == then["version"] and now["inputs"] == then["inputs"]:
        return (
            f"the output of step {name} changed on the same input, and its version is still {now['version']}: "
            f"bump the version of step {name} in pipeline/plan.py and run {COMMAND} to update"
        )
    return ""


@pytest.mark.parametrize("name", [step.name for step in STEPS])
def test_a_changed_output_has_a_new_version(name: str, entries: dict[str, Entry]) -> None:
    now, then = entries[name], golden().get(name)
    assert complaint(name, now, then) == ""
    assert UPDATE or now == then, f"step {name} is not the one of the golden file: run {COMMAND} to update"


def test_the_file_holds_exactly_the_steps_of_the_plan(entries: dict[str, Entry]) -> None:
    """The last of the tests: it writes the file where that was asked for and nothing was forgotten."""
    then = golden()
    if UPDATE and not any(complaint(name, now, then.get(name)) for name, now in entries.items()):
        GOLDEN.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    assert list(golden()) == [step.name for step in STEPS]


def test_a_change_without_a_bump_is_told_and_one_with_it_is_not() -> None:
    then = {"version": 3, "inputs": "a", "outputs": "b"}
    assert "bump the version of step s in pipeline/plan.py" in complaint("s", then | {"outputs": "c"}, then)
    assert complaint("s", then | {"outputs": "c", "version": 4}, then) == ""
    assert complaint("s", then | {"outputs": "c", "inputs": "d"}, then) == ""
    assert "went back" in complaint("s", then | {"version": 2}, then)


def test_the_last_bits_of_a_float_do_not_matter() -> None:
    one = pl.DataFrame({"x": [0.1, 1e-17, 123456.7], "t": ['{"a": 0.12345678}', None, "n/a"], "training_hash": ["a", "b", "c"]})
    other = one.with_columns(
        pl.Series("x", [0.1 + 1e-16, 0.0, 123456.7 * (1 + 1e-15)]),
        pl.Series("t", ['{"a": 0.12345679}', None, "n/a"]),
        pl.Series("training_hash", ["d", "e", "f"]),
    )
    assert steady_hash(one) == steady_hash(other)
    assert steady_hash(one) != steady_hash(one.with_columns(pl.Series("x", [0.1001, 0.0, 123456.7])))
