"""A page for each notebook, with what its cells printed and drew when `make notebooks` last ran them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

FOLDER = "notebooks"


def pages(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """The pages and the figures by path, from the notebooks of a folder."""
    texts: dict[str, str] = {}
    figures: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        parts: list[str] = []
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                parts += _shown(output, f"{path.stem}-{len(figures)}.png", figures)
        link = f"[{path.name}](../{FOLDER}/{path.name})"
        parts.insert(1, f"The notebook {link} with its output. Run it in Jupyter; its first cell installs kl.")
        texts[f"{FOLDER}/{path.stem}.md"] = "\n\n".join(parts) + "\n"
        figures[f"{FOLDER}/{path.name}"] = path.read_bytes()
    return texts, figures


def _shown(output: dict[str, Any], name: str, figures: dict[str, bytes]) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        figures[f"{FOLDER}/{name}"] = base64.b64decode(data["image/png"])
        return [f"![{name.removesuffix('.png')}]({name})"]
    text = "".join(output.get("text", data.get("text/plain", [])))
    return [f"```text\n{text.rstrip()}\n```"] if text.strip() else []
