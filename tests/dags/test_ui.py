"""An operator's way through Airflow's pages, in a real browser: log in, ask for a backfill, watch it turn green, read a log."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dags.airflow_runs import DAGS, SESSION_DAG, told, wait_for_runs
from flowlake.market.s3server import S3Server
from flowlake.pipeline.local_airflow import USER, LocalAirflow, bucket_variables, local_airflow
from integration.market_bucket import fill, small_market

pytestmark = [pytest.mark.real("airflow", "chromium"), pytest.mark.timeout(1200)]

SESSIONS = ("2023-11-22", "2023-11-24")
"""Thanksgiving lies between them: two sessions, three days."""
PAGE_MS = 60_000
GREEN_SECONDS = 420


def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture
def page() -> Iterator[Page]:
    browser = chromium()
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, and it shows pages of our own only.
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        made = opened.new_page(viewport={"width": 1400, "height": 800}, reduced_motion="reduce")
        made.set_default_timeout(PAGE_MS)
        yield made
        opened.close()


@dataclass
class Night:
    airflow: LocalAirflow
    nightly: str


@pytest.fixture
def night(page: Page, s3: S3Server, tmp_path: Path) -> Iterator[Night]:
    """Airflow on a small bucket, after its first night. Asks for the page first: without a browser nothing is started."""
    market = small_market(6, 3, first_session=date(2023, 11, 20))
    settings = fill(s3, "ui", market, tmp_path / "lake")
    first = market.days[0]
    with local_airflow(tmp_path / "home", DAGS, bucket_variables(settings, first, first)) as airflow:
        yield Night(airflow, str(first))


def shots(tmp_path: Path) -> Callable[[Page, str], None]:
    folder = Path(os.environ.get("FLOWLAKE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png") and None


def test_a_person_backfills_two_sessions_and_reads_a_log(page: Page, night: Night, tmp_path: Path) -> None:
    shoot, airflow = shots(tmp_path), night.airflow
    wait_for_runs(airflow, [night.nightly], GREEN_SECONDS)

    page.goto(airflow.url)
    page.locator("input[name=username]").fill(USER)
    page.locator("input[type=password]").fill(airflow.password)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Dags").first.wait_for()
    page.goto(f"{airflow.url}/dags")
    page.get_by_role("link", name=SESSION_DAG).first.click()
    page.locator(f"a[data-testid^='grid-scheduled__{night.nightly}']").first.wait_for()

    # While its data come in the page draws itself anew, and loses a dialog that was opened too soon.
    page.reload(wait_until="networkidle")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    # On a busy machine the dialog's opening outlasts every wait for it to stand still.
    dialog.get_by_text("Backfill", exact=True).dispatch_event("click")
    for day in SESSIONS:
        page.get_by_text("Select date and time").first.click()
        page.get_by_placeholder("YYYY/MM/DD").last.fill(day.replace("-", "/"))
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(page.get_by_placeholder("YYYY/MM/DD")).to_have_count(0)
    expect(dialog.get_by_text("2 runs will be triggered")).to_be_visible(timeout=PAGE_MS)
    page.locator("input[name=max_active_runs]").fill("2")
    shoot(page, "1-backfill")
    page.get_by_role("button", name="Run Backfill").click()
    expect(page.get_by_text("Backfill generated").first).to_be_visible(timeout=PAGE_MS)
    shoot(page, "2-started")

    wait_for_runs(airflow, SESSIONS, GREEN_SECONDS)
    expect(page.get_by_text("Backfill in progress")).to_have_count(0, timeout=GREEN_SECONDS * 1000)
    page.goto(f"{airflow.url}/dags/{SESSION_DAG}/runs")
    expect(page.get_by_text("3 Dag Runs")).to_be_visible(timeout=PAGE_MS)
    for session in SESSIONS:
        row = page.get_by_role("row").filter(has_text=f"backfill__{session}")
        expect(row.get_by_text("Success")).to_be_visible(timeout=PAGE_MS)
    last = page.locator(f"a[data-testid^='grid-backfill__{SESSIONS[-1]}'][href$='/tasks/ingest']")
    last.wait_for()
    page.wait_for_load_state("networkidle")
    shoot(page, "3-green")
    assert {run.session: (run.kind, run.state) for run in told(airflow)} == {
        night.nightly: ("scheduled", "success"),
        **dict.fromkeys(SESSIONS, ("backfill", "success")),
    }

    last.click()
    expect(page.get_by_text(f"$ flowlake run --session {SESSIONS[-1]} --step ingest").first).to_be_visible(timeout=PAGE_MS)
    # The log shows the lines in view alone and scrolls to its end by itself: a second line of the table may be gone by then.
    table = page.get_by_text(re.compile(r"ingest_massive_option_trades +│ +1 │"))
    expect(table.first).to_be_visible(timeout=PAGE_MS)
    shoot(page, "4-log")

    page.goto(f"{airflow.url}/assets")
    page.get_by_role("link", name="massive_option_trades", exact=True).click()
    page.get_by_text("Task Dependencies").click()
    page.locator(".react-flow__controls-fitview").click()  # what lies outside the view is not in the page
    for node in (f"ingest{SESSION_DAG}", "option_trades", f"factors{SESSION_DAG}", "signals"):
        drawn = page.locator(".react-flow__node").filter(has_text=re.compile(f"^{node}$"))
        expect(drawn).to_have_count(1, timeout=PAGE_MS)
    shoot(page, "5-lineage")
