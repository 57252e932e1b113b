"""The notebook runs from top to bottom on the small lake that it makes, and its plots show something."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib import image
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "first_hour.ipynb"
ALWAYS_PLOTTED = 4
"""Smile, history, reasons, outcomes; the precision of alarms needs more sessions than the small lake has."""


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLOWLAKE_LAKE", raising=False)
        patch.setenv("TMPDIR", str(folder))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook: Any, kind: str) -> list[str]:
    found = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return [output["data"][kind] for output in found if kind in output.get("data", {})]


def test_it_plots(executed: Any) -> None:
    plots = [image.imread(io.BytesIO(base64.b64decode(png))) for png in outputs(executed, "image/png")]
    assert len(plots) == ALWAYS_PLOTTED
    for plot in plots:
        height, width = plot.shape[:2]
        assert width > 600
        assert height > 150
        colours = np.unique((plot[..., :3].reshape(-1, 3) * 15).astype(np.int64), axis=0)
        assert len(colours) > 10, "an empty chart has little but black, white and grey"


def test_it_finds_the_split_and_gives_reasons(executed: Any) -> None:
    texts = "\n".join(outputs(executed, "text/plain"))
    assert "robust deviations" in texts
    assert "no verdict" in texts
    history = next(cell for cell in executed.cells if "adjust_for_splits(printed" in cell.source)
    assert "image/png" in history.outputs[-1]["data"]


def test_knowledge_grows_with_the_moment(executed: Any) -> None:
    asked = next(cell for cell in executed.cells if "lake.as_of(moment)" in cell.source)
    rows = [line.split("┆") for line in asked.outputs[-1]["data"]["text/plain"].splitlines() if "┆" in line][-3:]
    open_interest = [int(row[1]) for row in rows]
    signals = [int(row[2].strip(" │")) for row in rows]
    assert open_interest[0] == 0
    assert open_interest[1] == open_interest[2] > 0
    assert signals[:2] == [0, 0]
    assert signals[2] == 4
