"""All datasets by name."""

from __future__ import annotations

from difflib import get_close_matches

from flowlake.core.errors import UsageError
from flowlake.datasets.curated import CURATED
from flowlake.datasets.factors import FACTORS
from flowlake.datasets.flow_factors import FLOW_DATASETS
from flowlake.datasets.hits import FLOW_HITS
from flowlake.datasets.model import Dataset
from flowlake.datasets.modules import MODULE_SCORES
from flowlake.datasets.offexchange import OFFEXCHANGE
from flowlake.datasets.ops import OPS
from flowlake.datasets.packets import PACKETS
from flowlake.datasets.policies import SALE_CONDITIONS
from flowlake.datasets.quality import QUALITY
from flowlake.datasets.raw import RAW
from flowlake.datasets.sides import TRADE_SIDES
from flowlake.datasets.signals import SIGNALS, TRIALS
from flowlake.datasets.volatility import VOLATILITY

DATASETS: dict[str, Dataset] = {
    ds.name: ds
    for ds in (
        *RAW,
        *CURATED,
        SALE_CONDITIONS,
        *FACTORS,
        *VOLATILITY,
        *OFFEXCHANGE,
        TRADE_SIDES,
        *PACKETS,
        *FLOW_DATASETS,
        FLOW_HITS,
        MODULE_SCORES,
        *SIGNALS,
        *QUALITY,
        *OPS,
    )
}

RUN_KEYED: tuple[Dataset, ...] = (*OPS, TRIALS)
"""Records of runs: one file per run instead of one per session."""


def dataset(name: str) -> Dataset:
    """The declared dataset; UsageError with the nearest names where there is none."""
    if name in DATASETS:
        return DATASETS[name]
    near = get_close_matches(name, DATASETS, n=3)
    raise UsageError(
        f"there is no dataset {name!r}",
        f"did you mean {', '.join(near)}?" if near else "`flowlake datasets` lists them",
    )
