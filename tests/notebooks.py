"""The notebooks of the documentation: `python tests/notebooks.py` (`make notebooks`) runs them and keeps the output."""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
TIMEOUT = 300  # seconds that a cell may take


def execute(path, folder, *more):
    """The notebook with the output of its cells, run in the folder; then `more` code cells, which are added.

    Raises:
        CellExecutionError: a cell has failed.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(text) for text in more]
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def main():
    """Run all notebooks, or those whose names are given, and write them with their output."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        notebook.metadata.pop("widgets", None)
        notebook.metadata["language_info"] = {"name": "python"}  # not the version that happens to be here
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
