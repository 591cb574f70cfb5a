"""The notebooks of the documentation: what is committed is whole, small and of no machine; and they run."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from notebooks import FOLDER, execute

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 150_000  # bytes of a notebook with its figures
NUMBERS = {
    "01-limit": """{
        name: [
            float(curves["val/error"][-1]),
            of_limit["exact_val_error"],
            curves["distance"][-1] / of_limit["exact_rkhs_norm"],
        ]
        for name, (curves, of_limit) in runs.items()
    } | {f"{name} with noise": noisy[name][3].tolist() for name in noisy}""",
    "02-table": """{
        "loo error": model.loo_error_,
        "test error": test_error,
        "log loss": log_loss(probabilities, test_labels),
        "log loss with T = 1": log_loss(outputs.softmax(dim=1), test_labels),
        "left out": float((solved - left_out[200, 0]).abs()),
    }""",
    "03-images": """{
        **{name: errors[name].mean(axis=1).tolist() for name in errors},
        **{f"{name}, moved": shifted[name] for name in shifted},
        "trained": test_error,
    }""",
}
"""Expressions of each notebook's variables, whose values the tests below look at."""


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_committed(path):
    text, notebook = path.read_text(encoding="utf-8"), nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(text) < LARGEST
    assert not re.search(r"/(root|home|work|Users|tmp|usr|opt)/", text), "a path of a machine"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it with make notebooks"
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}, "an error"
    assert not [output.text for output in outputs if output.get("name") == "stderr"], "a warning"
    assert any("image/png" in output.get("data", {}) for output in outputs), "a figure"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_first_cell_installs_what_is_missing(path):
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert 'if importlib.util.find_spec("kl") is None:\n    %pip install --quiet {SOURCE}' in first.source
    source = re.search(r'^SOURCE = "(.*)"$', first.source, re.MULTILINE)[1]
    assert (path.parent / source).resolve() == ROOT
    assert "://" not in first.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_only_public_names_are_imported(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            for node in ast.walk(ast.parse(cell.source)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                ours = {name for name in names if name.split(".")[0] in ("kl", "datamodules", "callbacks", "recipes")}
                assert ours <= {"kl", "kl.data", "kl.callbacks"}


def test_all_notebooks_have_numbers():
    assert [path.stem for path in PATHS] == list(NUMBERS)


def numbers(name, folder):
    """What the notebook has computed, when it is run in the folder; its cells must print no warning."""
    last = f"import json\nprint(json.dumps({NUMBERS[name]}))"
    notebook = execute(FOLDER / f"{name}.ipynb", folder, last)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
    return json.loads(notebook.cells[-1].outputs[0].text)


@pytest.mark.slow
def test_the_limit_runs(tmp_path):
    found = numbers("01-limit", tmp_path)
    for name, furthest in (("Laplacian", 0.004), ("Gaussian", 0.25)):
        error, of_limit, distance = found[name]
        assert error == pytest.approx(of_limit, abs=1.5 / 360)  # at most one test image apart
        assert error < 0.02
        assert distance < furthest
    assert found["Gaussian"][2] > 20 * found["Laplacian"][2]
    (norm, error), (smooth_norm, smooth_error) = found["Laplacian with noise"], found["Gaussian with noise"]
    assert error < 0.04 < 0.1 < smooth_error
    assert 40 < norm < smooth_norm


@pytest.mark.slow
def test_the_table_runs(tmp_path):
    found = numbers("02-table", tmp_path)
    assert found["left out"] < 1e-9
    assert found["loo error"] == pytest.approx(0.257, abs=0.02)
    assert found["test error"] == pytest.approx(0.239, abs=0.04)
    assert found["log loss"] < 0.51 < 0.55 < found["log loss with T = 1"]


@pytest.mark.slow
def test_the_images_run(tmp_path):
    found = numbers("03-images", tmp_path)
    assert all(a < b for a, b in zip(found["patches"], found["pixels"], strict=True))
    assert found["patches, moved"][1] < 0.7 * found["pixels, moved"][1]
    assert found["trained"] < 0.01
