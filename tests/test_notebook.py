"""The notebook runs from its first cell to its last, on a few sentences, and is stored without what it printed."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "train.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


@pytest.mark.slow
def test_it_trains_compares_and_shows_pictures(
    notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = "classic lora"  # a third would be converted anew for this test alone
    environment = {
        "NOTEBOOK_ROWS": "400",
        "NOTEBOOK_EPOCHS": "1",
        "NOTEBOOK_FAMILIES": families,
        "TMPDIR": str(tmp_path),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute(env=dict(os.environ))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in output.data for output in shown) == 3
    text = "\n".join(output.data.get("text/plain", "") for output in shown)
    assert "macro-F1" in text
    assert "lora" in text
    assert "predict.py" in text
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "emotion/1" in said and "emotion/2" in said  # compared
    assert [scratch.name for scratch in tmp_path.glob("kalimtak-*/models_store/emotion")] == ["emotion"]
