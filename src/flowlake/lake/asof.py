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
from flowlake.lake.partitions import InputRecord, Lineage, StoredRows, lineage_in, partition_path, read_partition
from flowlake.lake.store import Store

Loader = Callable[[Dataset, date, tuple[str, ...]], pl.DataFrame]


@dataclass(frozen=True)
class Slice:
    """A request: the newest `count` partitions of a dataset at or before session t, leaving out the newest `lag` sessions.

    `adjust` brings rows of earlier sessions to the share basis of t. `columns` are the ones wanted, all where none is named.
    """

    dataset: Dataset
    count: int = 1
    lag: int = 0
    adjust: bool = False
    columns: tuple[str, ...] = ()


class AsOfReader:
    """Reads for one session. `load` may cache: partitions are immutable while a step runs."""

    def __init__(self, store: Store, index: Index, session: date, load: Loader | None = None) -> None:
        self._store, self._index = store, index
        self.session = session
        self.decision_utc = decision_time(session)
        self._load = load or (lambda ds, day, columns: read_partition(store, ds, day, columns))

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
        frame = pl.concat([self._known(wanted.dataset, day, wanted.columns) for day in days])
        if wanted.adjust:
            frame = adjust_for_splits(frame, wanted.dataset, self._actions(days))
        return frame

    def stored(self, wanted: Slice, least_rows: int) -> StoredRows | None:
        """The slice, to be read some rows at a time. None where it is not one partition of so many rows, all known in time: such a
        slice is read as a whole.
        """
        ds, entry = wanted.dataset, self._index.get(wanted.dataset, self.session)
        if entry is None or entry.lineage.rows < least_rows or wanted.adjust or self.sessions(wanted) != [self.session]:
            return None
        path = partition_path(ds, self.session)
        body = self._store.read(path)
        lineage = lineage_in(body, path)  # of these bytes: another process may have published since the index was made
        return StoredRows(ds, self.session, body, lineage.rows, wanted.columns) if self.is_all_known(lineage) else None

    def _hash(self, ds: Dataset, day: date) -> str:
        entry = self._index.get(ds, day)
        if entry is None:
            raise LookAheadError(f"{ds.name} {day} vanished while it was read", "run again")
        if self.is_all_known(entry.lineage):
            return entry.lineage.data_hash
        return data_hash(self._known(ds, day).drop(SESSION))

    def is_all_known(self, lineage: Lineage) -> bool:
        """Whether every row of a partition was known by the decision time."""
        last = lineage.known_last_utc
        return not last or datetime.fromisoformat(last) <= self.decision_utc

    def _known(self, ds: Dataset, day: date, columns: tuple[str, ...] = ()) -> pl.DataFrame:
        if day > self.session:
            raise LookAheadError(f"{ds.name} {day} lies after session {self.session}", "a step reads sessions up to its own")
        frame = self._load(ds, day, (*columns, KNOWN_AT) if columns else ())
        if frame.height and (frame.get_column(KNOWN_AT) > self.decision_utc).any():
            frame = frame.filter(pl.col(KNOWN_AT) <= self.decision_utc)
        return frame.drop(KNOWN_AT) if columns and KNOWN_AT not in columns else frame

    def _actions(self, days: list[date]) -> pl.DataFrame:
        frame = self._known(CORPORATE_ACTIONS, self.session) if self.knows_actions else CORPORATE_ACTIONS.empty()
        changes = pl.col("kind").is_in(["split", "symbol_change"])
        return (
            frame.filter(changes & (pl.col("ex_date") > days[0]) & (pl.col("ex_date") <= self.session))
            .select("underlying", "ex_date", "kind", "ratio", "new_symbol")
            .sort(pl.all())
        )

    @property
    def knows_actions(self) -> bool:
        """Whether the session's corporate actions are there; without them nothing can be adjusted."""
        return self._index.get(CORPORATE_ACTIONS, self.session) is not None

    def _events(self, days: list[date]) -> list[list[str]]:
        return [[str(value) for value in row] for row in self._actions(days).iter_rows()]


def adjust_for_splits(frame: pl.DataFrame, ds: Dataset, actions: pl.DataFrame) -> pl.DataFrame:
    """Rows of earlier sessions on today's basis: splits and symbol changes of `actions` whose ex-date lies after the row's session.

    Shape and order of the rows stay. Prices of the underlying are divided by the ratio of new to old shares, share quantities
    multiplied by it. Options follow the general rule of the Options Clearing Corporation: a whole ratio (2:1, 7:1) multiplies the
    contracts and divides strikes and premiums; any other (3:2, a reverse 1:10) changes what a contract delivers and leaves count,
    strike and quoted premium. So counts of contracts change by whole ratios alone, and so do all columns of a dataset with
    `contract`: a row keeps strike, premium and spot on one basis. The text of `contract` stays as it was printed. Special cases
    that the corporation decided otherwise (rounded strikes, cash in lieu, spin-offs) are not covered, nor are the terms of 3:2
    splits before 2007, when strikes were divided.

    Events of one day act together, days in order: a class that takes over another's ticker is not mistaken for it. A split on
    the day of a change of symbol may be filed under either ticker.
    """
    if "underlying" not in (column.name for column in ds.columns) or frame.is_empty():
        return frame
    events = _carried_forward(actions)
    hit = (
        frame.lazy()
        .select("underlying", SESSION)
        .filter(pl.col("underlying").is_in(events.get_column("underlying").unique().implode()))
        .unique()
        .sort(SESSION, "underlying")
        .collect(engine="in-memory")
    )
    if hit.is_empty():
        return frame
    # The first event after the session: its factors already hold those of all later ones.
    factors = hit.join_asof(
        events.sort("ex_date", "underlying"),
        left_on=SESSION,
        right_on="ex_date",
        by="underlying",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    ).drop("ex_date")
    joined = frame.join(factors, on=["underlying", SESSION], how="left", maintain_order="left")
    by_contract = "contract" in (column.name for column in ds.columns)
    adjusted = [
        _adjusted(pl.col(c.name), c.adjust, by_contract or c.adjust is Adjust.CONTRACTS).cast(c.dtype)
        for c in ds.columns
        if c.adjust is not None and c.name in frame.columns
    ]
    return joined.with_columns(*adjusted, pl.coalesce("later_underlying", "underlying").alias("underlying")).select(frame.columns)


_CARRIED = {
    "underlying": pl.String(),
    "ex_date": pl.Date(),
    "later_underlying": pl.String(),
    "share_factor": pl.Float64(),
    "contract_factor": pl.Int64(),
}


def _carried_forward(actions: pl.DataFrame) -> pl.DataFrame:
    """What becomes of a ticker from each of its ex-dates on, that day's and all later events of `actions` included.

    One row per `underlying` and `ex_date`: `later_underlying`, `share_factor` (new shares per old), `contract_factor` (the product
    of the whole ratios alone).
    """
    days: dict[date, tuple[dict[str, float], dict[str, str]]] = {}
    for underlying, day, kind, ratio, new in (
        actions.select("underlying", "ex_date", "kind", "ratio", "new_symbol").sort(pl.all()).iter_rows()
    ):
        splits, names = days.setdefault(day, ({}, {}))
        if kind == "split" and ratio is not None:
            splits[underlying] = splits.get(underlying, 1.0) * ratio
        elif kind == "symbol_change" and new is not None:
            names[underlying] = new
    carried: dict[str, tuple[str, float, int]] = {}
    rows = []
    for day in sorted(days, reverse=True):
        splits, names = days[day]
        of_day = {}
        for old in sorted(splits.keys() | names.keys()):
            new = names.get(old, old)
            # A ticker that is itself given up that day has its own splits, not those of the class that takes it over.
            ratio = splits.get(old, 1.0 if new in names else splits.get(new, 1.0))
            later, shares, contracts = carried.get(new, (new, 1.0, 1))
            of_day[old] = (later, ratio * shares, (int(ratio) if ratio >= 1 and ratio.is_integer() else 1) * contracts)
        rows += [(old, day, *effect) for old, effect in of_day.items()]
        carried |= of_day
    return pl.DataFrame(rows, schema=_CARRIED, orient="row")


def _adjusted(value: pl.Expr, how: Adjust, whole_only: bool) -> pl.Expr:
    factor = pl.col("contract_factor" if whole_only else "share_factor").fill_null(1)
    return value / factor if how is Adjust.PRICE else value * factor
