"""The as-of reader: what a step for session t may see, and nothing else.

It refuses sessions after t, rows that became known after D(t), datasets that the step did not declare, and applies the splits with
ex-date in (s, t] to rows of an earlier session s. Each answer comes with one hash over exactly the rows that were returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from flowlake.core.errors import LookAheadError
from flowlake.core.sessions import decision_time
from flowlake.datasets.curated import CORPORATE_ACTIONS
from flowlake.datasets.model import KNOWN_AT, SESSION, Adjust, Dataset
from flowlake.lake.hashing import data_hash, json_hash
from flowlake.lake.index import Index
from flowlake.lake.partitions import InputRecord, read_partition
from flowlake.lake.store import Store

Loader = Callable[[Dataset, date], pl.DataFrame]


@dataclass(frozen=True)
class Slice:
    """A request: the newest `count` partitions of a dataset at or before session t, leaving out the newest `lag` sessions.

    `adjust` brings rows of earlier sessions to the share basis of t.
    """

    dataset: Dataset
    count: int = 1
    lag: int = 0
    adjust: bool = False


class AsOfReader:
    """Reads for one session. `load` may cache: partitions are immutable while a step runs."""

    def __init__(self, store: Store, index: Index, session: date, load: Loader | None = None) -> None:
        self._index = index
        self.session = session
        self.decision_utc = decision_time(session)
        self._load = load or (lambda ds, day: read_partition(store, ds, day))

    def sessions(self, wanted: Slice) -> list[date]:
        """Partitions that the slice covers. A look-back of one means session t itself, not the newest that exists."""
        known = [day for day in self._index.sessions(wanted.dataset) if day <= self.session]
        if wanted.count == 1 and wanted.lag == 0:
            return [day for day in known if day == self.session]
        if wanted.lag:
            known = [day for day in known if day < self.session]
        return known[-wanted.count :]

    def record(self, wanted: Slice) -> InputRecord | None:
        """The hash of the slice without reading it, where the footers suffice; None where nothing exists."""
        days = self.sessions(wanted)
        if not days:
            return None
        parts = [[str(day), self._hash(wanted.dataset, day)] for day in days]
        events = self._events(days) if wanted.adjust else []
        return InputRecord(wanted.dataset.name, str(days[0]), str(days[-1]), json_hash([parts, events]))

    def read(self, wanted: Slice) -> pl.DataFrame | None:
        """Rows of the slice with `session`; None where no partition exists."""
        days = self.sessions(wanted)
        if not days:
            return None
        frame = pl.concat([self._known(wanted.dataset, day) for day in days])
        if wanted.adjust:
            frame = adjust_for_splits(frame, wanted.dataset, self._actions(days))
        return frame

    def _hash(self, ds: Dataset, day: date) -> str:
        entry = self._index.get(ds, day)
        if entry is None:
            raise LookAheadError(f"{ds.name} {day} vanished while it was read", "run again")
        last = entry.lineage.known_last_utc
        if not last or datetime.fromisoformat(last) <= self.decision_utc:
            return entry.lineage.data_hash
        return data_hash(self._known(ds, day).drop(SESSION))

    def _known(self, ds: Dataset, day: date) -> pl.DataFrame:
        if day > self.session:
            raise LookAheadError(f"{ds.name} {day} lies after session {self.session}", "a step reads sessions up to its own")
        frame = self._load(ds, day)
        if frame.height and (frame.get_column(KNOWN_AT) > self.decision_utc).any():
            return frame.filter(pl.col(KNOWN_AT) <= self.decision_utc)
        return frame

    def _actions(self, days: list[date]) -> pl.DataFrame:
        frame = self._known(CORPORATE_ACTIONS, self.session) if self._has_actions() else CORPORATE_ACTIONS.empty()
        changes = pl.col("kind").is_in(["split", "symbol_change"])
        return (
            frame.filter(changes & (pl.col("ex_date") > days[0]) & (pl.col("ex_date") <= self.session))
            .select("underlying", "ex_date", "kind", "ratio", "new_symbol")
            .sort(pl.all())
        )

    def _has_actions(self) -> bool:
        return self._index.get(CORPORATE_ACTIONS, self.session) is not None

    def _events(self, days: list[date]) -> list[list[str]]:
        return [[str(value) for value in row] for row in self._actions(days).iter_rows()]


def adjust_for_splits(frame: pl.DataFrame, ds: Dataset, actions: pl.DataFrame) -> pl.DataFrame:
    """Rows of earlier sessions on today's basis: splits and symbol changes of `actions` whose ex-date lies after the row's session.

    Prices and strikes are divided by the ratio of new to old shares, quantities multiplied by it (a fraction of a contract is
    cut off). Events of one day act together, days in order: a class that takes over another's ticker is not mistaken for it.
    The text of `contract` stays as it was printed.
    """
    if "underlying" not in frame.columns:
        return frame
    for day in actions.get_column("ex_date").unique().sort():
        of_day = actions.filter(pl.col("ex_date") == day)
        before = pl.col(SESSION) < day
        for underlying, ratio in of_day.filter(pl.col("kind") == "split").select("underlying", "ratio").drop_nulls().iter_rows():
            hit = before & (pl.col("underlying") == underlying)
            frame = frame.with_columns(
                pl.when(hit).then(_adjusted(pl.col(c.name), c.adjust, ratio)).otherwise(pl.col(c.name)).cast(c.dtype).alias(c.name)
                for c in ds.columns
                if c.adjust is not None
            )
        names = dict(of_day.filter(pl.col("kind") == "symbol_change").select("underlying", "new_symbol").drop_nulls().iter_rows())
        if names:
            renamed = pl.col("underlying").replace(names)
            frame = frame.with_columns(pl.when(before).then(renamed).otherwise(pl.col("underlying")).alias("underlying"))
    return frame


def _adjusted(value: pl.Expr, how: Adjust, ratio: float) -> pl.Expr:
    return value / ratio if how is Adjust.PRICE else value * ratio
