"""Quarantine: candidates that an audit or a parser refused, with the failing rows, the reason and the cure.

An entry is keyed by the inputs and versions that led to it, so that it holds exactly as long as they stay the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import polars as pl

from flowlake.datasets.model import Dataset
from flowlake.lake.partitions import QUARANTINE, encode
from flowlake.lake.store import Store


@dataclass(frozen=True)
class Refusal:
    """Why a candidate, or some rows, did not go into the lake. `kind` is `held` or `rows`."""

    dataset: str
    session: str
    inputs_key: str
    kind: str
    step: str
    rule: str
    what: str
    cure: str
    rows: int
    quarantined_at_utc: str
    run_id: str

    @property
    def folder(self) -> str:
        return f"{QUARANTINE}/{self.dataset}/session={self.session}/{self.inputs_key[:16]}-{self.rule}"


def put(store: Store, refusal: Refusal, ds: Dataset, candidate: pl.DataFrame | None, rows: pl.DataFrame | None) -> None:
    """Keep a refusal. The record is written last: without it the entry does not exist."""
    for name, frame in (("candidate", candidate), ("rows", rows)):
        if frame is not None and frame.width:
            store.write(f"{refusal.folder}/{name}.parquet", encode(ds, frame))
    store.write(f"{refusal.folder}/refusal.json", json.dumps(asdict(refusal), indent=1, sort_keys=True).encode())


def refusals(store: Store, dataset: str = "") -> list[Refusal]:
    """All entries, or those of one dataset."""
    prefix = f"{QUARANTINE}/{dataset}/" if dataset else f"{QUARANTINE}/"
    found = [s.path for s in store.list(prefix) if s.path.endswith("/refusal.json")]
    return [Refusal(**json.loads(store.read(path))) for path in found]


def settle(store: Store, dataset: str, session: str, inputs_key: str) -> None:
    """A partition was published: forget refusals of older inputs and those since lifted; `quarantine` shows what is open."""
    for refusal in refusals(store, f"{dataset}/session={session}"):
        if refusal.kind == "held" or refusal.inputs_key != inputs_key:
            drop(store, refusal)


def drop(store: Store, refusal: Refusal) -> None:
    """Forget an entry; the record goes first, so that a kill in between leaves no entry half there."""
    store.delete(f"{refusal.folder}/refusal.json")
    for stat in list(store.list(f"{refusal.folder}/")):
        store.delete(stat.path)
