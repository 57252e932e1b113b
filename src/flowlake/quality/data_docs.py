"""Great Expectations' HTML Data Docs of a run, made once at its end from the stored validation results.

A page costs tens of milliseconds, so a long run gets pages for every failed validation and for the newest sessions; the overview
counts all of them, page or not, and says how many have none.
"""

from __future__ import annotations

import html
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowlake.datasets import render
from flowlake.datasets.model import Dataset
from flowlake.quality.expectations import load_great_expectations

PAGES = 300
"""Pages of validations that passed; failed ones always get theirs, up to `FAILED_PAGES`."""
FAILED_PAGES = 300
PROJECT = "gx"
SITE = "site"
INDEX = "index.html"


def build_data_docs(results: Sequence[Mapping[str, Any]], folder: Path, datasets: Mapping[str, Dataset]) -> Path:
    """Write the site below `folder` and give the path of its overview page.

    `results` are the `validation` of audits, in any order; `datasets` is the registry. What an earlier call wrote there is
    replaced. Raises OSError where the folder cannot be written.
    """
    chosen = choose_pages(results)
    folder.mkdir(parents=True, exist_ok=True)
    for part in (PROJECT, SITE):
        if (folder / part).exists():
            shutil.rmtree(folder / part)
    if chosen:
        _write_site(chosen, folder, datasets)
    overview = folder / INDEX
    overview.write_text(overview_page(results, len(chosen)), encoding="utf-8")
    return overview


def choose_pages(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The failed validations and, up to the limit, those of the newest sessions; newest first, then by dataset."""
    newest = sorted(results, key=lambda result: result["suite_name"])
    newest.sort(key=lambda result: str(result["meta"]["session"]), reverse=True)
    failed = [result for result in newest if not result["success"]][:FAILED_PAGES]
    passed = [result for result in newest if result["success"]][:PAGES]
    return [*failed, *passed]


def _write_site(results: Sequence[Mapping[str, Any]], folder: Path, datasets: Mapping[str, Dataset]) -> None:
    load_great_expectations()
    import great_expectations as gx
    from great_expectations.core.expectation_suite import ExpectationSuite

    context = gx.get_context(mode="file", project_root_dir=str(folder.resolve()))
    context.delete_data_docs_site("local_site")
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str((folder / SITE).resolve())}
    builder = {"class_name": "DefaultSiteIndexBuilder"}
    context.add_data_docs_site(SITE, {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": builder})
    for name in sorted({result["suite_name"] for result in results}):
        context.suites.add(ExpectationSuite(**render.gx_suite(datasets[name])))
    for number, result in enumerate(results):
        context.validation_results_store.set(_identifier(result, number), _as_result(result))
    context.build_data_docs(site_names=[SITE])


def _identifier(result: Mapping[str, Any], number: int) -> Any:
    """The session stands in for the run of Great Expectations, so that its index lists partitions and not clock times."""
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    session = str(result["meta"]["session"])
    return ValidationResultIdentifier(
        expectation_suite_identifier=ExpectationSuiteIdentifier(name=result["suite_name"]),
        run_id=RunIdentifier(run_name=session, run_time=datetime.fromisoformat(session).replace(tzinfo=UTC)),
        batch_identifier=f"{result['suite_name']}-{number}",
    )


def _as_result(result: Mapping[str, Any]) -> Any:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    verdicts = [
        ExpectationValidationResult(
            success=verdict["success"],
            expectation_config=ExpectationConfiguration(**verdict["expectation_config"]),
            result=verdict["result"],
            exception_info=verdict["exception_info"],
        )
        for verdict in result["results"]
    ]
    return ExpectationSuiteValidationResult(
        success=result["success"],
        results=verdicts,
        suite_name=result["suite_name"],
        statistics=dict(result["statistics"]),
        meta=dict(result["meta"]),
    )


# --- Overview ------------------------------------------------------------------------------------------------------


def overview_page(results: Sequence[Mapping[str, Any]], pages: int) -> str:
    """HTML: every failed validation with the rules it broke, and the counts of all by dataset."""
    failed = [result for result in results if not result["success"]]
    link = f'<p><a href="{SITE}/{INDEX}">Pages of Great Expectations</a></p>' if pages else ""
    body = "".join(
        [
            f"<p>{len(results)} validations, {len(failed)} with a failed rule. {_coverage(len(results), pages)}</p>{link}",
            _table(("session", "dataset", "rows", "failed rule", "failing rows"), _failed_rows(failed)) if failed else "",
            _table(("dataset", "validations", "with a failed rule", "first session", "last session"), _by_dataset(results)),
        ]
    )
    style = "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:4px 8px}"
    head = f"<meta charset='utf-8'><title>flowlake audits</title><style>{style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body><h1>Audits</h1>{body}</body></html>\n"


def _coverage(count: int, pages: int) -> str:
    if pages == count:
        return "Each has a page."
    return (
        f"{pages} have a page (failed ones first, then the newest sessions); the other {count - pages} are counted below and kept "
        "in the dataset `audits`."
    )


def _failed_rows(failed: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    rows = [
        (
            result["meta"]["session"],
            result["suite_name"],
            result["meta"]["rows"],
            verdict["expectation_config"]["meta"]["rule"],
            verdict["result"].get("unexpected_count", ""),
        )
        for result in failed
        for verdict in result["results"]
        if not verdict["success"]
    ]
    rows += [
        (result["meta"]["session"], result["suite_name"], result["meta"]["rows"], rule, count)
        for result in failed
        for rule, count in result["meta"]["beyond_suite"].items()
    ]
    return sorted(rows, key=lambda row: (str(row[0]), str(row[1]), str(row[3])), reverse=True)


def _by_dataset(results: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    count = Counter(result["suite_name"] for result in results)
    bad = Counter(result["suite_name"] for result in results if not result["success"])
    sessions: dict[str, list[str]] = {}
    for result in results:
        sessions.setdefault(result["suite_name"], []).append(str(result["meta"]["session"]))
    return [(name, count[name], bad[name], min(sessions[name]), max(sessions[name])) for name in sorted(count)]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"
