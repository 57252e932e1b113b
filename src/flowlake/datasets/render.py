"""What is rendered from the declarations: Arrow schema, Great Expectations suite, DuckDB view, data dictionary.

Nothing here reads or writes a file. `render_all` gives the text of every committed rendering by its path in the repository;
`drift` says how committed files differ from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from glob import escape
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import polars as pl

from flowlake.datasets.checks import Check, Expectation, NotNull, Severity, TableCheck
from flowlake.datasets.model import KNOWN_AT, SESSION, UTC_NS, Column, Dataset, Layer

if TYPE_CHECKING:
    import pyarrow

PARTITION_FILE = "part.parquet"
SCHEMAS_PATH = "src/flowlake/datasets/rendered/schemas.json"
VIEWS_PATH = "src/flowlake/datasets/rendered/views.sql"
DICTIONARY_PATH = "docs/data-dictionary.md"
DEFAULT_ROOT = "lake"


def _known_at(ds: Dataset) -> Column:
    return Column(KNOWN_AT, UTC_NS, f"When the row became known: {ds.known.describe()}.")


def file_columns(ds: Dataset) -> tuple[Column, ...]:
    """Columns of a partition file, in order, with `known_at_utc` last."""
    return (*ds.columns, _known_at(ds))


# --- Arrow ---------------------------------------------------------------------------------------------------------


def arrow_schema(ds: Dataset) -> pyarrow.Schema:
    """Arrow schema of a partition file; unit and meaning are field metadata, the dataset's doc is schema metadata."""
    import pyarrow as pa  # heavy, and the declarations are imported by every command

    fields = pl.DataFrame(schema=ds.polars_schema()).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return pa.schema(
        [
            pa.field(column.name, fields.field(column.name).type, column.nullable, _field_metadata(column))
            for column in file_columns(ds)
        ],
        metadata={"doc": ds.doc, "layer": ds.layer.value},
    )


def _field_metadata(column: Column) -> dict[str, str]:
    return {"doc": column.doc} | ({"unit": column.unit} if column.unit else {})


# --- Great Expectations --------------------------------------------------------------------------------------------

_GX_SEVERITY = {Severity.ERROR: "critical", Severity.WARNING: "warning"}

Rule = tuple[str, Check] | tuple[None, TableCheck]


def rules(ds: Dataset) -> list[Rule]:
    """Every check of a dataset with its column, or None for a check across columns. The order is that of the suite."""
    by_column: list[Rule] = [(column.name, check) for column in file_columns(ds) for check in column.all_checks()]
    return [*by_column, *((None, check) for check in ds.table_checks())]


def rule_text(column: str | None, check: Check | TableCheck) -> str:
    return check.describe() if column is None else f"`{column}` {check.describe()}"


def gx_suite(ds: Dataset) -> dict[str, Any]:
    """The expectation suite as Great Expectations 1.24 stores it: columns in order, row count, then `rules` one for one.

    `meta.rule` of each expectation carries the check in words.
    """
    names = [column.name for column in file_columns(ds)]
    shape = Expectation("expect_table_columns_to_match_ordered_list", {"column_list": names})
    count = Expectation("expect_table_row_count_to_be_between", {"min_value": 0 if ds.may_be_empty else 1})
    expectations = [
        _gx_expectation(shape, "the declared columns in order", Severity.ERROR),
        _gx_expectation(count, "may be empty" if ds.may_be_empty else "at least one row", Severity.ERROR),
    ]
    for column, check in rules(ds):
        expectation = check.expectation() if column is None else check.expectation(column)  # type: ignore[call-arg]
        expectations.append(_gx_expectation(expectation, rule_text(column, check), check.severity))
    return {"name": ds.name, "expectations": expectations, "meta": {"layer": ds.layer.value}, "notes": ds.doc}


def _gx_expectation(expectation: Expectation, rule: str, severity: Severity) -> dict[str, Any]:
    return {
        "type": expectation.type,
        "kwargs": expectation.kwargs,
        "meta": {"rule": rule},
        "notes": rule,
        "severity": _GX_SEVERITY[severity],
    }


def suite_text(ds: Dataset) -> str:
    return json.dumps(gx_suite(ds), indent=2, ensure_ascii=False) + "\n"


@cache
def suite_hash(ds: Dataset) -> str:
    """SHA-256 of the rendered suite: a version of the rules that a partition was audited by."""
    return sha256(suite_text(ds).encode()).hexdigest()


# --- DuckDB --------------------------------------------------------------------------------------------------------

_DUCKDB_TYPES: dict[type[pl.DataType], str] = {
    pl.String: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Date: "DATE",
    pl.Datetime: "TIMESTAMPTZ",
    pl.Float64: "DOUBLE",
    pl.Float32: "FLOAT",
    pl.Int64: "BIGINT",
    pl.Int32: "INTEGER",
    pl.Int16: "SMALLINT",
    pl.Int8: "TINYINT",
    pl.UInt64: "UBIGINT",
    pl.UInt32: "UINTEGER",
    pl.UInt8: "UTINYINT",
}


def duckdb_type(dtype: pl.DataType) -> str:
    """Type of a column in a view. Moments are TIMESTAMPTZ, to the microsecond: DuckDB has no functions for nanoseconds."""
    if isinstance(dtype, pl.List):
        inner = dtype.inner
        return duckdb_type(inner if isinstance(inner, pl.DataType) else inner()) + "[]"
    return _DUCKDB_TYPES[type(dtype)]


def duckdb_view(
    ds: Dataset,
    root: str,
    *,
    exists: bool = True,
    as_of: datetime | None = None,
    last_session: date | None = None,
    files: Sequence[str] | None = None,
) -> str:
    """`CREATE OR REPLACE VIEW` over the dataset's partitions below `root`, a folder or an `s3://` address.

    The declared columns are handed to the reader, so that a partition written before a column was declared reads as null there, and
    no file is opened before the view is queried. `files` replaces the glob by explicit paths, each with a folder `session=...` in
    it. `exists=False` gives an empty view with the same columns and types, because DuckDB refuses a glob without a file.
    `as_of` (aware) leaves out what became known later, compared to the nanosecond; `last_session` leaves out later sessions.
    Raises ValueError for a naive `as_of`.
    """
    columns = ",\n  ".join(_view_columns(ds, exists))
    if not exists:
        return f"CREATE OR REPLACE VIEW {_quoted(ds.name)} AS SELECT\n  {columns}\nWHERE false;"
    folder = "*" if _is_journal(ds) else f"{SESSION}=*"
    # A folder may be named like a pattern; only `folder` is one.
    pattern = f"{escape(root.rstrip('/'))}/{ds.layer.value}/{ds.name}/{folder}/{PARTITION_FILE}"
    paths = [pattern] if files is None else [escape(path) for path in files]
    listed = "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"
    source = _source(ds, listed)
    conditions = list(_view_conditions(as_of, last_session))
    where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
    # While records of runs are packed, a run may lie in two files: the last by name has it.
    once = "\nQUALIFY filename = max(filename) OVER (PARTITION BY run_id)" if _is_journal(ds) else ""
    return f"CREATE OR REPLACE VIEW {_quoted(ds.name)} AS SELECT\n  {columns}\nFROM {source} AS part{where}{once};"


def _source(ds: Dataset, listed: str) -> str:
    """The reader of the files, with `session` from their path: DuckDB takes no schema together with hive partitioning."""
    reader = f"read_parquet({listed}, filename = true, schema = MAP {{\n  {_reader_schema(ds)}\n}})"
    if _is_journal(ds):
        return reader
    day = f"CAST(regexp_extract(filename, '.*/{SESSION}=([^/]+)/', 1) AS DATE)"
    return f"(SELECT *, {day} AS {_quoted(SESSION)} FROM {reader})"


def _reader_schema(ds: Dataset) -> str:
    return ",\n  ".join(
        f"'{name}': {{name: '{name}', type: '{_stored_type(dtype)}', default_value: NULL}}"
        for name, dtype in ds.polars_schema().items()
    )


def _stored_type(dtype: pl.DataType) -> str:
    return "TIMESTAMPTZ_NS" if isinstance(dtype, pl.Datetime) else duckdb_type(dtype)


def _is_journal(ds: Dataset) -> bool:
    """Records of runs lie in one folder per run, and name the session in a column of their own, if they are of one."""
    return "run_id" in ds.column_names


def _view_columns(ds: Dataset, exists: bool) -> Iterator[str]:
    partition = {} if _is_journal(ds) else {SESSION: pl.Date()}
    for name, dtype in {**ds.polars_schema(), **partition}.items():
        value = _quoted(name) if exists else "NULL"
        cast = not exists or isinstance(dtype, pl.Datetime)
        yield f"CAST({value} AS {duckdb_type(dtype)}) AS {_quoted(name)}" if cast else value


def _view_conditions(as_of: datetime | None, last_session: date | None) -> Iterator[str]:
    if last_session is not None:
        yield f"part.{_quoted(SESSION)} <= DATE '{last_session}'"
    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError("as_of must be timezone-aware")
        moment = as_of.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
        yield f"part.{_quoted(KNOWN_AT)} <= TIMESTAMPTZ_NS '{moment}'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- Data dictionary -----------------------------------------------------------------------------------------------


def data_dictionary(datasets: Iterable[Dataset]) -> str:
    """Markdown: every dataset with its grain, clock and columns, grouped by layer in the order of `Layer`."""
    listed = list(datasets)
    parts = [
        "# Data dictionary",
        "Rendered from the declarations in `flowlake.datasets`; edit those and run `flowlake render`.\n"
        "Every dataset also has `session`, the New York trading date of its partition.",
    ]
    for layer in Layer:
        of_layer = [ds for ds in listed if ds.layer is layer]
        if of_layer:
            parts.append(f"## {layer.value.capitalize()}")
            parts.extend(_dictionary_entry(ds) for ds in of_layer)
    return "\n\n".join(parts) + "\n"


def _dictionary_entry(ds: Dataset) -> str:
    grain = ", ".join(f"`{name}`" for name in ds.grain)
    kept = "for ever" if ds.retention_sessions is None else f"{ds.retention_sessions} sessions"
    facts = [
        f"- grain: one row per {grain}" + ("" if ds.unique else " (no key: identical rows can all be real)"),
        f"- known: {ds.known.describe()}",
        f"- order: {', '.join(f'`{name}`' for name in ds.sort_by)}, then the remaining columns",
        f"- kept: {kept}" + ("; a partition may be empty" if ds.may_be_empty else ""),
    ]
    facts.extend(f"- check: {check.describe()}{_severity_note(check)}" for check in ds.table_checks())
    header = "| column | type | unit | meaning | checks |\n|---|---|---|---|---|"
    rows = [_dictionary_row(column) for column in file_columns(ds)]
    return "\n".join([f"### {ds.name}", "", ds.doc, "", *facts, "", header, *rows])


def _dictionary_row(column: Column) -> str:
    stated = [check.describe() + _severity_note(check) for check in column.all_checks()]
    checks = "; ".join(stated) if stated else "may be null"
    if stated and column.nullable:
        checks = f"may be null; {checks}"
    cells = (f"`{column.name}`", duckdb_type(column.dtype), column.unit, column.doc, checks)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _severity_note(check: Check | TableCheck) -> str:
    return " (warning)" if check.severity is Severity.WARNING and not isinstance(check, NotNull) else ""


# --- Everything ----------------------------------------------------------------------------------------------------


def schemas_text(datasets: Iterable[Dataset]) -> str:
    """JSON: dataset -> its columns with Arrow type, nullability, unit and meaning."""
    described = {ds.name: _described_schema(ds) for ds in datasets}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _described_schema(ds: Dataset) -> dict[str, Any]:
    schema = arrow_schema(ds)
    return {
        "layer": ds.layer.value,
        "columns": [
            {
                "name": column.name,
                "type": str(schema.field(column.name).type),
                "nullable": column.nullable,
                "unit": column.unit,
                "doc": column.doc,
            }
            for column in file_columns(ds)
        ],
    }


def views_text(datasets: Iterable[Dataset], root: str = DEFAULT_ROOT) -> str:
    head = "-- One view per dataset, for a DuckDB that runs in the folder which holds the lake. Rendered: do not edit.\n"
    return head + "\n\n".join(duckdb_view(ds, root) for ds in datasets) + "\n"


def render_all(registry: Mapping[str, Dataset]) -> dict[str, str]:
    """Path in the repository -> text of every committed rendering."""
    datasets = list(registry.values())
    return {
        **{f"expectations/{ds.name}.json": suite_text(ds) for ds in datasets},
        DICTIONARY_PATH: data_dictionary(datasets),
        SCHEMAS_PATH: schemas_text(datasets),
        VIEWS_PATH: views_text(datasets),
    }


def drift(rendered: Mapping[str, str], committed: Mapping[str, str]) -> list[str]:
    """One line per difference between the declarations (`rendered`) and the files (`committed`), saying who lacks what."""
    lines = [f"{path}: declared, but the file does not exist" for path in rendered if path not in committed]
    lines += [f"{path}: the file exists, but nothing declares it" for path in committed if path not in rendered]
    for path in rendered:
        if path in committed and rendered[path] != committed[path]:
            lines.extend(_line_drift(path, rendered[path], committed[path]))
    return lines


_SHOWN = 5
_WIDTH = 120


def _line_drift(path: str, declared: str, written: str) -> Iterator[str]:
    wanted, present = declared.splitlines(), written.splitlines()
    missing = [line.strip() for line in wanted if line not in set(present)]
    surplus = [line.strip() for line in present if line not in set(wanted)]
    for side, lines in (("the file lacks", missing), ("the declaration lacks", surplus)):
        if lines:
            more = f" (and {len(lines) - _SHOWN} more lines)" if len(lines) > _SHOWN else ""
            shown = " / ".join(line if len(line) <= _WIDTH else line[:_WIDTH] + "..." for line in lines[:_SHOWN])
            yield f"{path}: {side} {shown}{more}"
    if not missing and not surplus:
        yield f"{path}: the same lines in another order or number"
