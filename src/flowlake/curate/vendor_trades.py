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
    output = trades.option_trades({**inputs, trades.SOURCE: raw}, session)
    return replace(output, findings=tuple(_about(finding, source) for finding in output.findings))


def _about(finding: Finding, source: str) -> Finding:
    """The finding in the words of the vendor that the rows came from."""
    named = replace(finding, what=finding.what.replace(trades.SOURCE, source))
    if finding.rule == "blank_condition" and source in WITHOUT_CONDITIONS:
        return replace(named, cure="nothing to do: this vendor gives no sale condition, so sweeps and packages stay unknown")
    return named
