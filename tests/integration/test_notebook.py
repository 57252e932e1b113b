"""The notebooks run from top to bottom on the small lakes that they make, and their plots show something."""

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

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FIRST_HOUR_PLOTS = 4
"""Smile, history, reasons, outcomes; the precision of alarms needs more sessions than the small lake has."""
VOLATILITY_PLOTS = 3
"""Smiles with their fits, term structure, gamma with its flip."""


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


def run(name: str, folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLOWLAKE_LAKE", raising=False)
        patch.setenv("TMPDIR", str(folder))
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run("first_hour.ipynb", tmp_path_factory.mktemp("notebook"))


def outputs(notebook: Any, kind: str) -> list[str]:
    found = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return [output["data"][kind] for output in found if kind in output.get("data", {})]


def check_plots(notebook: Any, count: int) -> None:
    plots = [image.imread(io.BytesIO(base64.b64decode(png))) for png in outputs(notebook, "image/png")]
    assert len(plots) == count
    for plot in plots:
        height, width = plot.shape[:2]
        assert width > 600
        assert height > 150
        colours = np.unique((plot[..., :3].reshape(-1, 3) * 15).astype(np.int64), axis=0)
        assert len(colours) > 10, "an empty chart has little but black, white and grey"


def test_it_plots(executed: Any) -> None:
    check_plots(executed, FIRST_HOUR_PLOTS)


def test_a_surface_is_plotted_with_its_fits_and_its_flip(tmp_path: Path) -> None:
    notebook = run("volatility_surface.ipynb", tmp_path)
    check_plots(notebook, VOLATILITY_PLOTS)
    fits = next(text for text in outputs(notebook, "text/plain") if "least g" in text)
    assert fits.count(" OK ") >= 6


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
