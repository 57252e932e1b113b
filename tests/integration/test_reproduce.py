"""A run built again in a scratch lake: identical, or which publication differs and why. The lake itself is never touched."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings
from flowlake.datasets.model import Output
from flowlake.datasets.registry import DATASETS
from flowlake.lake.partitions import FOOTER_KEY, encode, lineage_of
from flowlake.lake.store import open_store
from flowlake.market.s3server import S3Server
from flowlake.market.spec import OPTION_TRADES, session_key
from flowlake.pipeline.maintenance import prune
from flowlake.pipeline.plan import by_name, select
from flowlake.pipeline.reproduce import Reproduction, reproduce
from flowlake.pipeline.step import Step
from integration.conftest import CleanLake
from integration.market_bucket import BUCKET, bucket_of, call, command, republish, run_all

CHANGED = 2


def one_row_changed(lines: list[str]) -> list[str]:
    header, first, *rest = lines
    fields = dict(zip(header.split(","), first.split(","), strict=True))
    fields["size"] = str(int(fields["size"]) + 1)
    return [header, ",".join(fields.values()), *rest]


def every_file(root: str) -> dict[str, tuple[str, int]]:
    """Path -> hash and modification time of all there is in a lake, records and index included."""
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    return {str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def outcomes(made: Reproduction, outcome: str) -> set[tuple[str, date]]:
    return {(one.dataset, one.session) for one in made.compared if one.outcome == outcome}


def published(settings: Settings, run_id: str) -> set[tuple[str, date]]:
    frames = [pl.read_parquet(path) for path in Path(settings.lake).glob(f"ops/publications/run={run_id}/*.parquet")]
    return set(pl.concat(frames).select("dataset", "session").iter_rows())


def test_a_run_is_built_again_identically_and_the_lake_is_untouched(clean: CleanLake, tmp_path: Path) -> None:
    before = every_file(clean.settings.lake)
    keep = tmp_path / "kept"
    heard: list[tuple[int, int]] = []
    made = reproduce(clean.settings, clean.report.run_id, keep=keep, progress=lambda done, total, _: heard.append((done, total)))
    assert outcomes(made, "identical") == published(clean.settings, clean.report.run_id)
    assert (made.exit_code, made.adopted, made.versions) == (0, 0, ())
    assert all(one.found == one.expected and one.found_file == one.expected_file and not one.inputs for one in made.compared)
    assert heard[-1] == (clean.report.total("built"), clean.report.total("built"))
    assert every_file(clean.settings.lake) == before
    scratch = {
        str(p.relative_to(keep)): hashlib.sha256(p.read_bytes()).hexdigest() for p in keep.glob("*/*/session=*/part.parquet")
    }
    assert {path: file for path, file in scratch.items() if not path.startswith("ops/")} == clean.hashes


def test_the_command_narrows_and_tells(clean: CleanLake, tmp_path: Path) -> None:
    day = clean.market.days[3]
    before = every_file(clean.settings.lake)
    arguments = ("reproduce", clean.report.run_id, "--session", day, "--step", "signals", "option_iv")
    said = call(command(*arguments, "--json"), clean.settings)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    names = {name for step in select(["signals", "option_iv"]) for name in step.writes}
    assert {(c["dataset"], c["session"]) for c in told["compared"]} == {(name, str(day)) for name in names}
    assert told["totals"] == {"identical": len(names), "differs": 0, "not reproducible": 0}
    assert "built again in" in call(command(*arguments), clean.settings).stdout
    assert every_file(clean.settings.lake) == before

    in_lake = call(command(*arguments, "--keep", Path(clean.settings.lake) / "x"), clean.settings)
    assert (in_lake.returncode, "lies in the lake" in in_lake.stderr) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        reproduce(clean.settings, clean.report.run_id, keep=tmp_path / "full")
    with pytest.raises(UsageError, match="there is no run 'nobody'"):
        reproduce(clean.settings, "nobody")
    with pytest.raises(UsageError, match="published nothing"):
        reproduce(clean.settings, clean.report.run_id, session=date(1999, 1, 4))


def test_a_changed_step_is_named_and_what_follows_from_it(clean: CleanLake, monkeypatch: pytest.MonkeyPatch) -> None:
    day = clean.market.days[CHANGED]
    load = Step.load

    def skewed(step: Step) -> Any:
        function = load(step)
        if step.name != "option_iv":
            return function

        def changed(inputs: Any, session: date) -> Output:
            output = function(inputs, session)
            return replace(output, tables={"option_iv": output.tables["option_iv"].with_columns(pl.col("iv") * 1.01)})

        return changed

    monkeypatch.setattr(Step, "load", skewed)
    made = reproduce(clean.settings, clean.report.run_id, session=day, steps=select(["option_iv", "daily_factors", "curate"]))
    assert made.exit_code == 1
    assert outcomes(made, "differs") == {("option_iv", day), ("daily_factors", day), ("exposures", day)}
    by_dataset = {one.dataset: one for one in made.compared}
    assert by_dataset["option_iv"].why == "the same inputs gave other values"
    assert by_dataset["option_iv"].inputs == ()
    assert [d.dataset for d in by_dataset["daily_factors"].inputs] == ["option_iv"]
    assert by_dataset["daily_factors"].found not in ("", by_dataset["daily_factors"].expected)


def test_another_version_of_a_step_is_told(clean: CleanLake, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowlake.pipeline import plan
    from flowlake.pipeline import reproduce as module

    now = by_name()["reconcile"]
    newer = replace(now, version=now.version + 7)
    steps = tuple(newer if step.name == "reconcile" else step for step in plan.STEPS)
    monkeypatch.setattr(module, "STEPS", steps)
    monkeypatch.setattr(
        Step, "load", lambda step: lambda inputs, session: Output({"reconciliation": DATASETS["reconciliation"].empty()})
    )
    made = reproduce(clean.settings, clean.report.run_id, session=clean.market.days[0], steps=(by_name()["reconcile"],))
    (one,) = made.compared
    assert (one.outcome, one.versions) == ("differs", (f"version {now.version} of the step then, {newer.version} now",))
    assert "changed since" in one.why


def tampered(settings: Settings, name: str, day: date) -> None:
    """Other values below the footer of before, as a bad disk or a hand would leave them."""
    path = f"{DATASETS[name].layer.value}/{name}/session={day}/part.parquet"
    store = open_store(settings.lake, settings.lake_access)
    lineage = lineage_of(store, path)
    frame = pl.read_parquet(io.BytesIO(store.read(path)))
    store.write(path, encode(DATASETS[name], frame.head(frame.height - 1), {FOOTER_KEY: lineage.to_json()}))


def test_a_tampered_partition_is_found_as_output_and_as_input(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "tampered", tmp_path)
    day = clean.market.days[CHANGED]
    tampered(settings, "option_iv", day)
    made = reproduce(settings, clean.report.run_id, session=day, steps=select(["option_iv", "daily_factors"]))
    assert made.exit_code == 1
    (one,) = [one for one in made.compared if one.outcome == "differs"]
    assert (one.dataset, one.found) == ("option_iv", one.expected)
    assert "is not the file that was published" in one.why
    # Read as an input of a run that is reproduced in part, it stops what rests on it.
    part = reproduce(settings, clean.report.run_id, session=day, steps=select(["daily_factors"]))
    assert part.exit_code == 3
    assert {one.dataset: one.outcome for one in part.compared} == dict.fromkeys(("daily_factors", "exposures"), "not reproducible")
    assert "is not the file that was published" in part.compared[0].why


def test_an_old_run_is_built_again_from_history(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "restated-reproduce", tmp_path)
    day = clean.market.days[CHANGED]
    key = session_key(OPTION_TRADES, day)
    client = bucket_of(s3, "")._client
    original = client.get_object(Bucket=BUCKET, Key=f"restated-reproduce/{key}")["Body"].read()
    republish(s3, "restated-reproduce", key, one_row_changed)
    second = run_all(settings, clean.market, restate=True)
    assert ("option_trades", day) in published(settings, second.run_id)
    before = every_file(settings.lake)

    # The bucket no longer has what the first run read: that is said, and the raw partition that it published is used.
    made = reproduce(settings, clean.report.run_id)
    assert made.exit_code == 3
    lost = {("massive_option_trades", day)}
    assert outcomes(made, "not reproducible") == lost
    (raw,) = [one for one in made.compared if (one.dataset, one.session) in lost]
    assert f"{key} has other content now" in raw.why
    assert outcomes(made, "differs") == set()
    assert ("option_trades", day) in outcomes(made, "identical")
    assert ("signals", clean.market.days[-1]) in outcomes(made, "identical")
    # The second run read what the bucket has, and partitions of the first run beside its own.
    assert reproduce(settings, second.run_id).exit_code == 0
    assert every_file(settings.lake) == before

    # With the old file back in the bucket the first run is reproduced as a whole.
    bucket_of(s3, "restated-reproduce").put(key, original)
    whole = reproduce(settings, clean.report.run_id)
    assert (whole.exit_code, outcomes(whole, "identical")) == (0, published(settings, clean.report.run_id))
    assert every_file(settings.lake) == before


def test_without_a_bucket_the_kept_raw_partitions_are_used(clean: CleanLake) -> None:
    away = replace(clean.settings, bucket_name="", bucket_endpoint="")
    made = reproduce(away, clean.report.run_id, session=clean.market.days[1])
    assert made.exit_code == 3
    raw = {(name, day) for name, day in published(clean.settings, clean.report.run_id) if DATASETS[name].layer.value == "raw"}
    lost = outcomes(made, "not reproducible")
    assert lost == {(name, day) for name, day in raw if day == clean.market.days[1]}
    assert all("could not be listed" in one.why for one in made.compared if one.outcome == "not reproducible")
    assert outcomes(made, "differs") == set()


def test_pruned_history_is_named(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "pruned-reproduce", tmp_path)
    older, newer = clean.market.days[1], clean.market.days[CHANGED]
    for day in (older, newer):
        republish(s3, "pruned-reproduce", session_key(OPTION_TRADES, day), one_row_changed)
    run_all(settings, clean.market)
    prune(settings, keep_history=1, dry_run=False)
    made = reproduce(settings, clean.report.run_id, session=older, steps=select(["curate_option_trades"]))
    (one,) = made.compared
    assert one.outcome == "not reproducible"
    assert f"massive_option_trades {older}" in one.why
    assert "prune" in one.why
