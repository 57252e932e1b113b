"""Option prints from the first vendor that has the session, under the rules of `trades`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from flowlake.curate import trades
from flowlake.curate.vendors import PRINTS, WITHOUT_CONDITIONS, first_present
from flowlake.datasets.model import Finding, Inputs, Output


def option_trades(inputs: Inputs, session: date) -> Output:
    """Required input: contracts, and one of `vendors.PRINTS`; the first of them that exists is curated, the others are left alone.

    Every vendor passes the rules of `trades.option_trades`.
    """
    source = first_present(inputs, PRINTS)
    if source is None or source == trades.SOURCE:
        return trades.option_trades(inputs, session)
    raw = PRINTS[source](inputs[source], session)
    output = trades.option_trades({**inputs, trades.SOURCE: raw}, session, source)
    if source not in WITHOUT_CONDITIONS:
        return output
    return replace(output, findings=tuple(_without_conditions(finding) for finding in output.findings))


def _without_conditions(finding: Finding) -> Finding:
    """No condition is no fault of such a vendor's file."""
    if finding.rule != "blank_condition":
        return finding
    return replace(finding, cure="nothing to do: this vendor gives no sale condition, so sweeps and packages stay unknown")
