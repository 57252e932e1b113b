"""`doctor`: settings, bucket, lake, and which factors abstain for want of which file."""

from __future__ import annotations

import platform
import uuid
from dataclasses import dataclass

from flowlake.core.errors import FlowlakeError
from flowlake.core.settings import Settings
from flowlake.curate import vendors
from flowlake.datasets.raw import RAW
from flowlake.datasets.sides import QUOTE_SOURCES
from flowlake.lake.store import STAGING, open_store
from flowlake.pipeline.ingest import Listing, list_bucket
from flowlake.pipeline.invocation import libraries
from flowlake.sources.bucket import open_bucket

NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "option volume, premium and anomaly factors",
        (*vendors.PRINTS, *vendors.MINUTE_BARS, *vendors.DAY_BARS),
        "option flat files",
    ),
    (
        "sale conditions, sweeps and multi-leg shares",
        tuple(name for name in vendors.PRINTS if name not in vendors.WITHOUT_CONDITIONS),
        "us_options_opra/trades_v1",
    ),
    (
        "implied vols from quotes",
        ("massive_option_quotes", "cboe_snapshot", *vendors.QUOTE_STREAMS, *vendors.QUOTE_CHAINS),
        "us_options_opra/quotes_v1 or cboe_snapshots",
    ),
    (
        "who began a trade, net flow, confirmed hits",
        tuple(source.dataset for source in QUOTE_SOURCES if source.dataset not in vendors.WITHOUT_CONDITIONS),
        "us_options_opra/quotes_v1",
    ),
    ("underlying prices (else the parity-implied forward)", ("massive_stock_minute", "massive_stock_day"), "us_stocks_sip bars"),
    ("option-to-stock volume", ("massive_stock_day",), "us_stocks_sip/day_aggs_v1"),
    ("off-exchange prints, blocks and price levels", ("massive_stock_trades",), "us_stocks_sip/trades_v1"),
    (
        "open interest and gamma exposure",
        ("open_interest_file", "cboe_snapshot", *vendors.MORNING_OPEN_INTEREST),
        "reference/open_interest or cboe_snapshots",
    ),
    ("split adjustment and dividends", ("corporate_actions_file", "lean_events"), "reference/corporate_actions.csv or lean files"),
    ("interest rates (else 0)", ("rates_file", "lean_interest_rate"), "reference/rates.csv or lean/interest-rate.csv"),
    ("multipliers and exercise of unusual roots", ("contract_roots_file",), "reference/contract_roots.csv"),
    ("market tide by sector", ("sectors_file",), "reference/sectors.csv"),
)
"""What each group of factors needs: any one of the datasets, and a key that feeds it; `docs/vendors.md` lists all keys."""


@dataclass(frozen=True)
class Finding:
    """`state` is ok, abstains or failed."""

    subject: str
    state: str
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """All findings; nothing is changed but a probe object in the lake's staging area."""
    found = [Finding("software", "ok", f"python={platform.python_version()} {libraries()}"), _lake(settings)]
    try:
        listing = list_bucket(open_bucket(settings), {}, settings.skip_feeds)
    except FlowlakeError as error:
        return [*found, Finding("bucket", "failed", f"{error.what} ({error.cure})")]
    return [*found, _bucket(listing), *_feeds(listing), *_factors(listing)]


def _lake(settings: Settings) -> Finding:
    probe = f"{STAGING}/probe-{uuid.uuid4().hex}.tmp"
    try:
        store = open_store(settings.lake, settings.lake_access)
        store.write(probe, b"flowlake")
        store.delete(probe)
    except FlowlakeError as error:
        return Finding("lake", "failed", f"{error.what} ({error.cure})")
    return Finding("lake", "ok", f"{store.root} can be written")


def _bucket(listing: Listing) -> Finding:
    days = listing.sessions()
    span = f"sessions {days[0]} to {days[-1]} ({len(days)})" if days else "no dated file of a known feed"
    return Finding(
        "bucket", "ok" if days else "failed", f"{len(listing.objects)} objects that feed the lake, {listing.unknown} others; {span}"
    )


def _feeds(listing: Listing) -> list[Finding]:
    counts = {ds.name: sum(o.dataset == ds.name for o in listing.objects) for ds in RAW}
    return [Finding(name, "ok", f"{count} files") for name, count in counts.items() if count]


def _factors(listing: Listing) -> list[Finding]:
    present = listing.datasets()
    return [
        Finding(what, "ok", "fed by " + ", ".join(n for n in names if n in present))
        if present.intersection(names)
        else Finding(what, "abstains", f"put {keys} into the bucket to feed it")
        for what, names, keys in NEEDS
    ]
