"""The demo: a synthetic market with known truth behind a real S3 server, the main job on it, and what came out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl

from flowlake.backtest.episodes import EpisodeScorecard, episode_scorecard
from flowlake.core.errors import UsageError
from flowlake.lake.lake import open_lake
from flowlake.market.build import Market, build
from flowlake.market.s3server import s3_server
from flowlake.market.spec import MarketSpec
from flowlake.market.writer import write_bucket, write_folder, write_truth
from flowlake.pipeline import run as pipeline_run
from flowlake.pipeline.backtesting import backtest
from flowlake.pipeline.reporting import print_report, write_data_docs
from flowlake.pipeline.run import Request
from flowlake.report import terminal
from flowlake.report.signals import print_signals
from flowlake.sources.bucket import Bucket

BUCKET = "flowlake"
MARKER = "demo.txt"
TOP = 5


def write_market(out: Path, underlyings: int, sessions: int, first: date, seed: int, options_only: bool) -> None:
    """A synthetic market in `out/bucket`, its truth in `out/truth`."""
    market = build(
        MarketSpec(
            seed=seed,
            first_session=first,
            sessions=sessions,
            underlyings=underlyings,
            include_stock=not options_only,
            include_reference=not options_only,
        )
    )
    with terminal.progress("sessions written") as advance:
        count = write_folder(market, out / "bucket", _file_progress(market, advance))
    write_truth(market, out / "truth")
    terminal.console().print(f"{count} files in {out / 'bucket'}, the truth in {out / 'truth'}")


def demo(folder: Path, underlyings: int, sessions: int, seed: int, workers: int) -> int:
    """Run the demo in `folder`, which is emptied first if an earlier demo made it; returns the run's exit code."""
    _prepare(folder)
    out = terminal.console()
    market = build(MarketSpec(seed=seed, sessions=sessions, underlyings=underlyings))
    with s3_server([BUCKET]) as server:
        settings = server.settings((folder / "lake").resolve(), scratch=(folder / "scratch").resolve())
        out.print(
            f"1  a synthetic market of {underlyings} underlyings and {sessions} sessions, behind an S3 server on this machine"
        )
        with terminal.progress("sessions written") as advance:
            write_bucket(market, Bucket(server.access, BUCKET).put, _file_progress(market, advance))
        write_truth(market, folder / "truth")
        out.print(f"2  flowlake run --from {market.days[0]} --to {market.days[-1]}")
        request = Request(market.days[0], market.days[-1], executor="dask" if workers > 1 else "local", workers=workers)
        with terminal.progress("steps") as advance:
            report = pipeline_run.run(settings, request, lambda n, of, r: advance(n, of, f"{r.session} {r.step}: {r.status}"))
    print_report(report, write_data_docs(settings, report))
    lake = open_lake(settings=settings)
    out.print(f"\n3  the strongest signals, with their reasons (of {sessions} sessions)")
    best = lake.sql("select session, max(score) as score from signals group by session order by score desc nulls last limit 1")
    if not best.height or best["score"][0] is None:
        out.print("   no signal has a score: baselines need more history than this market has; try --sessions 64")
        return report.exit_code
    print_signals(lake.sql, best["session"][0], TOP, as_json=False)
    signals = lake.sql("select session, underlying, score, tier from signals")
    card = episode_scorecard(signals, pl.read_parquet(folder / "truth" / "episodes.parquet"))
    out.print("\n4  against the truth that was planted")
    _print_card(card)
    out.print("\n5  were they worth anything? (rolling windows, nothing fitted on the future)")
    sys.stdout.write(backtest(settings).to_text() + "\n")
    _print_next(folder, best["session"][0])
    return report.exit_code


def _prepare(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise UsageError(f"{folder} is not empty and no earlier demo made it", "give another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("made by `flowlake demo`, which empties this folder when it runs again\n", encoding="utf-8")


def _file_progress(market: Market, advance: terminal.Advance) -> Callable[[str, int], None]:
    """Progress in sessions: the files come session by session, each with its date in the key."""
    position = {str(day): i + 1 for i, day in enumerate(market.days)}

    def report(key: str, count: int) -> None:
        date_text = key.rsplit("/", 1)[-1].split(".")[0]
        advance(position.get(date_text, 0), len(market.days), f"{count} files")

    return report


def _print_card(card: EpisodeScorecard) -> None:
    facts = card.to_dict()
    out = terminal.console()
    out.print(
        f"   {facts['planted']} informed episodes were planted. {facts['findable']} of them could be found; "
        "the others moved before the underlying had a score."
    )
    out.print(f"   {facts['found']} of these {facts['findable']} were found before their move (tier high or top).")
    out.print(f"   {facts['alarms']} alarms, {facts['false_alarms']} of them false.")
    fired = [f"{kind.removeprefix('decoy:')} {n['fired']} of {n['episodes']}" for kind, n in facts["decoys"].items() if n["fired"]]
    out.print(f"   Decoys that raised an alarm: {', '.join(fired).replace('_', ' ') or 'none'}.")


def _print_next(folder: Path, session: date) -> None:
    lake, program = folder / "lake", _program()
    terminal.console().print(
        "try next:\n"
        f"  {program} report --lake {lake} --session {session}\n"
        f'  {program} sql --lake {lake} "select session, underlying, score, tier from signals order by score desc limit 20"\n'
        f"  {program} backtest --lake {lake}",
        markup=False,
        soft_wrap=True,
    )


def _program() -> str:
    """How to call the command from the current folder: the environment of `make` is not on the PATH."""
    if shutil.which("flowlake"):
        return "flowlake"
    beside = Path(sys.executable).with_name("flowlake")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
