"""Draw the dashboards: every panel's own query, answered by a real Prometheus, of a synthetic market built session by session.

    .venv/bin/python docs/draw_dashboards.py docs/img

No Grafana is asked: places, titles and units are those of its files, colours and letters are not. `prometheus` and `promtool` must
be installed. The figures of each session are put one day apart, as if one had been measured each day; what is a moment, such as a
publication, is that of the drawing.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from flowlake import monitoring
from flowlake.core.sessions import last_actionable, offset
from flowlake.market import MarketSpec, build, write_bucket
from flowlake.market.s3server import s3_server
from flowlake.monitoring.metrics import METRICS, Sample
from flowlake.pipeline.measuring import measure
from flowlake.pipeline.run import Request, run
from flowlake.sources.bucket import Bucket

FOLDER = Path(monitoring.__file__).parent / "grafana" / "dashboards"
DASHBOARDS = [FOLDER / "operations.json", FOLDER / "signals.json"]
"""Those of a lake. That of Airflow is drawn by a test that has one, tests/dags/test_postgres.py, into FLOWLAKE_SCREENSHOTS."""
SESSIONS = 40
DAY_SECONDS = 86_400
BARS = 14
"""Bars that a picture has room for, the longest; Grafana scrolls."""
Moments = dict[int, list[Sample]]


@dataclass(frozen=True)
class Span:
    """What time a picture shows, in seconds since 1970, the seconds between two points, and the unit of its axis."""

    first: int
    last: int
    step: int
    unit: str
    unit_seconds: int


def days(moments: Moments) -> Span:
    return Span(min(moments), max(moments), DAY_SECONDS, "days", DAY_SECONDS)


def measured(folder: Path) -> Moments:
    """The figures after each session, by the time they are put at: the last now, the others a day apart before it."""
    first = offset(last_actionable(datetime.now(UTC), 1)[0], 1 - SESSIONS)
    market = build(MarketSpec(sessions=SESSIONS, underlyings=8, trades_per_underlying_session=200, first_session=first))
    found = []
    with s3_server() as server:
        bucket = Bucket(server.access, "flowlake", "market")
        write_bucket(market, bucket.put)
        settings = server.settings(folder / "lake", "market")
        for position, day in enumerate(market.days):
            run(settings, Request(day, day))
            found.append(measure(settings, day))
            print(f"\rsession {position + 1} of {SESSIONS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    now = math.ceil(time.time())
    return {now - back * DAY_SECONDS: samples for back, samples in enumerate(reversed(found))}


def openmetrics(moments: Moments) -> Iterator[str]:
    """The figures in the text format that promtool makes blocks of."""
    for metric in METRICS:
        yield f"# TYPE {metric.name.removesuffix('_total')} {metric.kind}"
        for at, samples in sorted(moments.items()):
            for sample in samples:
                if sample.metric is metric:
                    labels = dict(zip(metric.labels, sample.labels, strict=True)) | {"instance": "/lake", "job": "flowlake"}
                    told = ",".join(f'{name}="{value}"' for name, value in labels.items())
                    yield f"{metric.name}{{{told}}} {sample.value!r} {at}"
    yield "# EOF"


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """A Prometheus that holds the figures of `folder`; its address."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            raise SystemExit(f"no {program} here: install Debian's package prometheus, or put the program on the path")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "figures"), str(folder / "data")]
    subprocess.run(blocks, check=True, stdout=subprocess.DEVNULL)
    (folder / "prometheus.yml").write_text("scrape_configs: []\n", encoding="utf-8")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=1y", "--log.level=error"]
    with subprocess.Popen(command) as process:
        try:
            until = time.monotonic() + 60
            while not answers(f"http://{address}/-/ready"):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit("prometheus did not start")
                time.sleep(0.2)
            yield f"http://{address}"
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return bool(fetch(url))
    except OSError:
        return False


def fetch(url: str) -> bytes:
    with build_opener(ProxyHandler({})).open(url, timeout=60) as response:
        return bytes(response.read())


def asked(address: str, target: dict[str, Any], span: Span) -> list[tuple[str, list[tuple[float, float]]]]:
    """Name and points of every series of a panel's query: the newest point alone where the panel shows one."""
    query, first = target["expr"].replace("$instance", ".+"), span.last if target.get("instant") else span.first
    wanted = urlencode({"query": query, "start": first, "end": span.last, "step": span.step})
    found = json.loads(fetch(f"{address}/api/v1/query_range?{wanted}"))["data"]["result"]
    return [(named(target["legendFormat"], one["metric"]), [(at, float(value)) for at, value in one["values"]]) for one in found]


def named(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return "" if form == "__auto" else form


def shown(value: float, unit: str) -> str:
    """A value as a person reads it."""
    if unit == "dateTimeAsIso":
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d}"
    if unit == "percentunit":
        return f"{value:.0%}"
    steps = {
        "s": [(86_400.0, " d"), (3_600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms")],
        "bytes": [(2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B")],
    }.get(unit, [(1e6, " M"), (1e3, " k"), (1.0, "")])
    size, name = next((step for step in steps if abs(value) >= step[0]), (1.0, steps[-1][1] if unit != "s" else " s"))
    return f"{value / size:.3g}{name}"


def draw_panel(axes: Axes, panel: dict[str, Any], address: str, span: Span) -> None:
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    series = [one for target in panel["targets"] for one in asked(address, target, span)]
    axes.set_title(panel["title"], loc="left", fontsize=9)
    if panel["type"] == "stat":
        axes.axis("off")
        text = shown(series[0][1][-1][1], unit) if series else "No data"
        axes.text(0.5, 0.42, text, ha="center", va="center", fontsize=17, transform=axes.transAxes)
    elif panel["type"] == "bargauge":
        bars = sorted(((points[-1][1], name) for name, points in series))[-BARS:]
        axes.barh([name for _, name in bars], [value for value, _ in bars], color="#3b7dd8")
        for place, (value, _) in enumerate(bars):
            axes.text(value, place, f" {shown(value, unit)}", va="center", fontsize=6)
        axes.set_xlim(0, 1.15 * max((value for value, _ in bars), default=0.0) or 1.0)
        axes.set_xticks([])
        axes.tick_params(labelsize=6)
    else:
        times = range(span.first, span.last + 1, span.step)
        for name, points in series[:BARS]:
            values = dict(points)
            shown_at = [(at - span.last) / span.unit_seconds for at in times]
            axes.plot(shown_at, [values.get(at, math.nan) for at in times], ".-", label=name, ms=3, lw=1)
        axes.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
        axes.set_xlabel(span.unit, fontsize=6)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=5.5, loc="best", ncols=2, framealpha=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(dashboard: dict[str, Any], address: str, span: Span, path: Path) -> None:
    """One picture of all panels, each at its place."""
    panels = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(13, rows * 0.27))
    for panel in panels:
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        if panel["type"] == "row":
            figure.text(0.01, 1 - (y + 0.8) / rows, panel["title"], fontsize=11, weight="bold")
            continue
        inset = (0.0, 0.0) if panel["type"] == "stat" else (2.6 if panel["type"] == "bargauge" else 1.2, 1.1)
        place = ((x + 0.4 + inset[0]) / 24, 1 - (y + h - inset[1]) / rows, (w - 0.8 - inset[0]) / 24, (h - 0.9 - inset[1]) / rows)
        draw_panel(figure.add_axes(place), panel, address, span)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)
    print(path)


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory(prefix="flowlake-dashboards-") as made:
        folder = Path(made)
        moments = measured(folder)
        (folder / "figures").write_text("\n".join(openmetrics(moments)) + "\n", encoding="utf-8")
        with prometheus(folder) as address:
            for file in DASHBOARDS:
                dashboard = json.loads(file.read_text(encoding="utf-8"))
                draw(dashboard, address, days(moments), Path(sys.argv[1]) / f"dashboard-{file.stem}.png")


if __name__ == "__main__":
    main()
