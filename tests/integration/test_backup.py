"""What a backup is for: the lake is lost, and comes back as it was, with what no rebuild would give again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings
from flowlake.lake.lake import open_lake
from flowlake.lake.store import open_store
from flowlake.market.s3server import S3Server
from flowlake.market.spec import OPTION_TRADES, session_key
from flowlake.pipeline.backtesting import backtest
from flowlake.pipeline.backup import CATALOGUE, BackupReport, backup, recover, vintages
from flowlake.pipeline.maintenance import verify
from integration.conftest import CleanLake
from integration.market_bucket import call, command, lake_hashes, republish, run_all

Lived = tuple[Settings, str]


@pytest.fixture(scope="module")
def lived_once(s3: S3Server, clean: CleanLake, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """A lake whose signals are older than its inputs, with history, a held file, findings and a trial; and its bucket's prefix."""
    prefix = "backup"
    settings = clean.copy(s3, prefix, tmp_path_factory.mktemp("lived"))
    day = clean.market.days[1]
    republish(s3, prefix, session_key(OPTION_TRADES, day), lambda lines: [*lines[:1], *lines[1 : len(lines) * 2 // 3]])
    republish(
        s3, prefix, session_key(OPTION_TRADES, clean.market.days[3]), lambda lines: [lines[0].replace("price", "prize"), *lines[1:]]
    )
    report = run_all(settings, clean.market)
    assert (report.exit_code, report.total("quarantined")) == (3, 1)
    assert report.total("restatable") > 0
    backtest(settings)
    return settings, prefix


@pytest.fixture
def lived(lived_once: Lived, tmp_path: Path) -> Lived:
    """A copy of that lake, to be lost; the bucket is only read."""
    settings, prefix = lived_once
    shutil.copytree(settings.lake, tmp_path / "lake")
    return replace(settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch")), prefix


def hashes(root: Path | str, *folders: str) -> dict[str, str]:
    files = (path for folder in folders for path in sorted((Path(root) / folder).rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def actions(report: BackupReport) -> dict[str, int]:
    return report.actions()


def records(settings: Settings, name: str) -> pl.DataFrame:
    return open_lake(settings=settings).read(name).collect().sort(pl.all())


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "s3"])
def test_a_lost_lake_comes_back_as_it_was(lived: Lived, clean: CleanLake, tmp_path: Path, remote: bool) -> None:
    settings, prefix = lived
    place = f"s3://other/{prefix}/kept" if remote else str(tmp_path / "kept")
    served = lake_hashes(settings.lake)
    names = [ds.name for ds in vintages()]
    history = hashes(settings.lake, *(f"_history/{name}" for name in names))
    quarantine = hashes(settings.lake, "_quarantine")
    assert served != clean.hashes
    assert quarantine
    before = {name: records(settings, name) for name in ("runs", "publications", "trials", "findings", "objects", "quarantine")}
    assert before["trials"].height > 0

    first = backup(settings, place)
    assert set(actions(first)) == {"copied"}
    again = backup(settings, place)
    assert actions(again) == {"has it": len(first.files)}

    shutil.rmtree(settings.lake)
    assert set(actions(recover(settings, place, dry_run=True))) == {"recovered"}
    assert not (Path(settings.lake) / "ops").exists()
    recovered = recover(settings, place)
    assert (set(actions(recovered)), recovered.exit_code) == ({"recovered"}, 0)
    assert hashes(settings.lake, "_quarantine") == quarantine
    assert hashes(settings.lake, *(f"_history/{name}" for name in names)) == history
    for name, rows in before.items():
        assert records(settings, name).equals(rows), name

    report = run_all(settings, clean.market)
    assert {r.status for r in report.results if r.step == "score_signals"} <= {"fresh", "restatable"}
    assert report.total("held") == 1, "what quarantine held is not tried again"
    assert lake_hashes(settings.lake) == served
    assert [found for found in verify(settings) if found.problem] == []
    assert actions(backup(settings, place))["has it"] >= len(first.files) - 1


def test_everything_is_everything(lived: Lived, tmp_path: Path) -> None:
    settings, _ = lived
    place = str(tmp_path / "kept")
    every = ("raw", "curated", "derived", "labels", "ops", "_history", "_quarantine")
    whole = hashes(settings.lake, *every)
    few = backup(settings, place)
    report = backup(settings, place, everything=True)
    assert actions(report) == {"has it": len(few.files), "copied": len(whole) - len(few.files)}
    shutil.rmtree(settings.lake)
    recover(settings, place)
    found = hashes(settings.lake, *every)
    assert whole.items() <= found.items()
    assert [path.split("/")[1] for path in found.keys() - whole.keys()] == ["invocations"], "the recovery itself is on record"


def test_a_damaged_file_of_the_backup_is_named_and_not_restored(lived: Lived, tmp_path: Path) -> None:
    settings, _ = lived
    place = tmp_path / "kept"
    backup(settings, str(place))
    signals, models = (sorted((place / "derived" / name).rglob("*.parquet"))[0] for name in ("signals", "models"))
    flipped = bytearray(signals.read_bytes())
    flipped[len(flipped) // 3] ^= 1
    signals.write_bytes(flipped)
    models.unlink()
    shutil.rmtree(settings.lake)
    said = call(command("recover", "--from", place), settings)
    assert said.returncode == 1
    assert f"damaged {signals.relative_to(place)}: " in said.stdout
    assert f"missing {models.relative_to(place)}: the backup names it and does not hold it" in said.stdout
    assert "not recovered" in said.stdout
    for path in (signals, models):
        assert not (Path(settings.lake) / path.relative_to(place)).exists()
    assert [found for found in verify(settings) if found.problem] == []


def test_a_good_file_of_other_content_is_not_taken_for_the_one_that_was_copied(lived: Lived, tmp_path: Path) -> None:
    settings, _ = lived
    place = tmp_path / "kept"
    backup(settings, str(place))
    one, other, *_ = sorted((place / "derived" / "signals").rglob("*.parquet"))
    shutil.copyfile(one, other)
    shutil.rmtree(settings.lake)
    bad = recover(settings, str(place)).problems
    assert [(m.path, m.problem) for m in bad] == [
        (other.relative_to(place).as_posix(), "it is not the file that was copied: not recovered")
    ]


def test_a_damaged_file_of_the_lake_does_not_spoil_the_backup(lived: Lived, tmp_path: Path) -> None:
    settings, _ = lived
    place = tmp_path / "kept"
    backup(settings, str(place))
    good = hashes(place, "derived")
    served = next((Path(settings.lake) / "derived" / "signals").rglob("*.parquet"))
    served.write_bytes(served.read_bytes()[:-40] + bytes(40))
    report = backup(settings, str(place))
    assert [(m.path, m.action) for m in report.problems] == [(served.relative_to(settings.lake).as_posix(), "damaged")]
    assert report.exit_code == 1
    assert hashes(place, "derived") == good
    forced = recover(settings, str(place), force=True)
    assert actions(forced)["replaced"] == 1
    assert [found for found in verify(settings) if found.problem] == []


def test_what_differs_stays_unless_forced_and_then_goes_under_history(lived: Lived, clean: CleanLake, tmp_path: Path) -> None:
    settings, _ = lived
    place = str(tmp_path / "kept")
    as_published = lake_hashes(settings.lake)
    backup(settings, place)
    assert run_all(settings, clean.market, restate=True).total("built") > 0
    restated = lake_hashes(settings.lake)
    differing = {path for path in restated if restated[path] != as_published[path]}
    assert differing
    report = recover(settings, place)
    assert (report.exit_code, {m.path for m in report.files if m.action == "differs"} & restated.keys()) == (0, differing)
    assert lake_hashes(settings.lake) == restated
    recover(settings, place, force=True)
    assert lake_hashes(settings.lake) == as_published
    kept = {path.stem for path in (Path(settings.lake) / "_history").rglob("*.parquet")}
    assert {restated[path] for path in differing} <= kept


def lost(place: Path) -> None:
    (place / CATALOGUE).unlink()


def torn(place: Path) -> None:
    (place / CATALOGUE).write_text((place / CATALOGUE).read_text()[:100])


@pytest.mark.parametrize("harm", [lost, torn])
def test_a_backup_without_its_list_is_still_one(lived: Lived, tmp_path: Path, harm: Callable[[Path], Any]) -> None:
    settings, _ = lived
    place = tmp_path / "kept"
    count = len(backup(settings, str(place)).files)
    served = hashes(settings.lake, "derived/signals", "ops/runs")
    harm(place)
    shutil.rmtree(settings.lake)
    report = recover(settings, str(place))
    assert actions(report)["recovered"] == count
    assert [m.path for m in report.problems] == ([] if harm is lost else [CATALOGUE])
    assert hashes(settings.lake, "derived/signals", "ops/runs") == served
    assert len(backup(settings, str(place)).files) == count + 1, "the record of the recovery is new"
    assert json.loads((place / CATALOGUE).read_text())["files"]


def test_places_that_cannot_be_right(lived: Lived, tmp_path: Path) -> None:
    settings, _ = lived
    with pytest.raises(UsageError, match="lies inside the lake"):
        backup(settings, str(Path(settings.lake) / "backup"))
    with pytest.raises(UsageError, match="there is no backup at"):
        recover(settings, str(tmp_path / "nothing"))
    backup(settings, str(tmp_path / "kept"))
    other = replace(settings, lake=str(tmp_path / "other"))
    with pytest.raises(UsageError, match="is a backup of"):
        backup(other, str(tmp_path / "kept"))
    assert open_store(other.lake, other.lake_access).stat(CATALOGUE) is None
