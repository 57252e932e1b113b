"""Does the pipeline find what was planted? The main job on synthetic markets of seeds that nothing was tuned on.

    python benchmarks/detection.py [SEED ...]

Seeds 101 to 104 unless told otherwise, each a demo of 12 underlyings and 64 sessions, of two minutes. An underlying-session is
informed inside an informed episode and before its move. The rival is one factor alone, the score of the share of sweeps. The table
is the one in docs/methods.md.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import polars as pl
from sklearn.metrics import average_precision_score, roc_auc_score

from flowlake.backtest.episodes import INFORMED, episode_scorecard
from flowlake.lake.lake import open_lake
from flowlake.pipeline.demo import demo

SEEDS = (101, 102, 103, 104)


def scored_sessions(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every underlying-session with a score: `score`, `iso_share_z`, `informed`; and the planted episodes."""
    lake = open_lake(str(root / "lake"))
    truth = pl.read_parquet(root / "truth" / "episodes.parquet")
    rows = lake.sql(
        """
        select s.session, s.underlying, s.score, s.tier, coalesce(f.iso_share_z, 0) as iso_share_z
        from signals s join factor_panel f on f.session = s.session and f.underlying = s.underlying
        where s.score is not null order by s.session, s.underlying
        """
    )
    spans = truth.filter(pl.col("kind") == INFORMED).select("underlying", "first_session", "last_session", "move_session")
    inside = rows.join(spans, on="underlying").filter(
        pl.col("session").is_between("first_session", "last_session")
        & (pl.col("move_session").is_null() | (pl.col("session") < pl.col("move_session")))
    )
    informed = inside.select("session", "underlying").unique().with_columns(informed=pl.lit(True))
    marked = rows.join(informed, on=["session", "underlying"], how="left").with_columns(pl.col("informed").fill_null(False))
    return marked.sort("session", "underlying"), truth


def main(seeds: tuple[int, ...]) -> None:
    print("| seed | planted | findable | found | alarms | false | AUC | average precision | AUC of `iso_share_z` alone | its AP |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    every = []
    sums = [0] * 5
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="flowlake-detection-") as folder:
            root = Path(folder) / "demo"
            with contextlib.redirect_stdout(io.StringIO()):
                code = demo(root, 12, 64, seed, 1)
            if code:
                raise SystemExit(f"seed {seed}: the run ended with {code}")
            rows, truth = scored_sessions(root)
            card = episode_scorecard(
                open_lake(str(root / "lake")).sql("select session, underlying, score, tier from signals"), truth
            )
        counts = [card.planted, card.findable, card.found, card.alarms.height, card.false_alarms]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        every.append(rows)
        print(line(str(seed), counts, rows), flush=True)
    print(line("all", sums, pl.concat(every)))


def line(name: str, counts: list[int], rows: pl.DataFrame) -> str:
    informed = rows["informed"].to_numpy()
    figures = [
        measure(informed, rows[column].to_numpy())
        for column in ("score", "iso_share_z")
        for measure in (roc_auc_score, average_precision_score)
    ]
    return f"| {name} | " + " | ".join([*map(str, counts), *(f"{figure:.3f}" for figure in figures)]) + " |"


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SEEDS)
