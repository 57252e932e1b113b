"""Confusion counts per session, the metrics they give, and intervals that respect the dependence inside a session.

All underlyings of a session share its market move, and windows of h sessions overlap, so rows are no independent draws. The
bootstrap therefore draws blocks of consecutive sessions (Kuensch 1989, moving blocks, here circular so that every session is
drawn equally often).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from flowlake.core.arrays import Bool, Float, Int

COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")
METRICS = (
    "base_rate",
    "precision",
    "recall",
    "false_positive_rate",
    "false_discovery_rate",
    "f1",
    "lift",
)
"""False positive rate: FP / (FP + TN). False discovery rate: FP / (FP + TP), signals that no move followed over signals."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; None where it is undefined (0 / 0) or too rarely defined."""

    value: float | None
    low: float | None
    high: float | None
    method: str


def confusion(alarms: Bool, happened: Bool, groups: Int, group_count: int) -> Int:
    """COUNTS per group, shape (group_count, 4)."""
    table = np.zeros((group_count, 4), dtype=np.int64)
    column = np.where(happened, np.where(alarms, 0, 2), np.where(alarms, 1, 3))
    np.add.at(table, (groups, column), 1)
    return table


def hits_at(scores: Float, happened: Bool, groups: Int, group_count: int, k: int) -> Int:
    """Per group: significant moves among the k highest scores, and how many were picked, shape (group_count, 2).

    NaN scores are never picked. Equal scores keep the order of the rows.
    """
    table = np.zeros((group_count, 2), dtype=np.int64)
    usable = np.flatnonzero(~np.isnan(scores))
    order = usable[np.lexsort((usable, -scores[usable], groups[usable]))]
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    picked = order[np.arange(len(order)) - starts < k]
    np.add.at(table[:, 1], groups[picked], 1)
    np.add.at(table[:, 0], groups[picked], happened[picked].astype(np.int64))
    return table


def rates(counts: Int | Float) -> dict[str, Float]:
    """METRICS of `counts` (..., 4), each of shape (...); NaN where a metric is 0 / 0."""
    tp, fp, fn, tn = (counts[..., i].astype(np.float64) for i in range(4))
    base_rate = _ratio(tp + fn, tp + fp + fn + tn)
    precision = _ratio(tp, tp + fp)
    return {
        "base_rate": base_rate,
        "precision": precision,
        "recall": _ratio(tp, tp + fn),
        "false_positive_rate": _ratio(fp, fp + tn),
        "false_discovery_rate": _ratio(fp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "lift": _ratio(precision, base_rate),
    }


def shares(total: Int) -> dict[str, tuple[int, int]]:
    """Successes and trials of the metrics that are shares, from `total` (4)."""
    tp, fp, fn, tn = (int(count) for count in total)
    return {
        "base_rate": (tp + fn, tp + fp + fn + tn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "false_positive_rate": (fp, fp + tn),
        "false_discovery_rate": (fp, tp + fp),
    }


def hit_rate(table: Int | Float) -> Float:
    """Hits over picks of `table` (..., 2)."""
    return _ratio(table[..., 0].astype(np.float64), table[..., 1].astype(np.float64))


def _ratio(above: Float, below: Float) -> Float:
    safe = np.where(below > 0, below, 1.0)
    return np.asarray(np.where(below > 0, above / safe, np.nan))


def block_draws(groups: int, block: int, samples: int, seed: int) -> Int:
    """How often each group is drawn in each sample, shape (samples, groups): circular blocks, cut to `groups` draws."""
    blocks = -(-groups // block)
    starts = np.random.default_rng(seed).integers(0, groups, size=(samples, blocks))
    drawn = ((starts[:, :, None] + np.arange(block)) % groups).reshape(samples, -1)[:, :groups]
    counts = np.zeros((samples, groups), dtype=np.int64)
    np.add.at(counts, (np.arange(samples)[:, None], drawn), 1)
    return counts


def percentile_interval(value: float, replicates: Float, confidence: float) -> Interval:
    """Percentile bootstrap. No interval where fewer than half of the replicates are defined."""
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value):
        return Interval(None, None, None, "session_block_bootstrap")
    if 2 * len(defined) < len(replicates):
        return Interval(float(value), None, None, "session_block_bootstrap")
    low, high = np.quantile(defined, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return Interval(float(value), float(low), float(high), "session_block_bootstrap")


def wilson(successes: int, trials: int, confidence: float) -> Interval:
    """Wilson's score interval of a share; it takes the trials as independent, so with overlapping windows it is too narrow."""
    if trials == 0:
        return Interval(None, None, None, "wilson")
    z = NormalDist().inv_cdf((1.0 + confidence) / 2)
    share = successes / trials
    spread = z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * float(np.sqrt(share * (1 - share) / trials + spread / (4 * trials))) / (1 + spread)
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0), "wilson")


def drawn_sums(draws: Int, per_group: Int) -> Int:
    """Sums of `per_group` (groups, m) in each sample of `draws` (samples, groups), exact integers."""
    return np.asarray(draws @ per_group)
