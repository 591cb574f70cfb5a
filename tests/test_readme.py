"""The README's commands and the Python blocks of README and docs do what they say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]


def blocks(language, *texts):
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


BLOCKS = {"bash": blocks("bash", README), "python": blocks("python", README, *DOCS)}
COMMANDS = [
    line.split("#")[0].strip() for block in BLOCKS["bash"] for line in block.splitlines() if line.startswith("kl ")
]


@pytest.mark.parametrize(
    "command", [pytest.param(each, marks=pytest.mark.slow if "kl reproduce " in each else ()) for each in COMMANDS]
)
def test_commands(kl, command, request, monkeypatch):
    words = shlex.split(command)[1:]
    if words[0] == "fit":
        words += ["--fast-dev-run"]
    if words[0] == "reproduce":
        words += ["--scale", "tiny"]
    if "csv-houses" in command or "csv:houses" in command:
        rng = np.random.default_rng(0)
        rows = [f"{area},{zip_code},{area * 3}\n" for area, zip_code in rng.integers(100, size=(60, 2))]
        Path("houses.csv").write_text("area,zip,price\n" + "".join(rows))
    if words[0] == "predict" and "csv-houses" in command:
        assert kl("fit", "--data", "csv:houses.csv", "--target", "price", "--epochs", 1).code == 0
        Path("new.csv").write_text("zip,area\n7,50\n")
    elif words[0] in ("predict", "export", "report"):
        assert kl("fit", "--data", "digits", "--epochs", 1).code == 0
        np.savez("new.npz", x=np.zeros((2, 64), dtype=np.float32))
    if "stream:big" in words:
        assert kl("data", "synthetic", "--rows", 2000, "--output", "big").code == 0
    if "mnist" in words:
        monkeypatch.setenv("KL_DATA_DIR", request.getfixturevalue("data_dir"))
    result = kl(*words)
    assert result.code == 0, result.err
    for option in {"--save", "--output"} & set(words):
        assert Path(words[words.index(option) + 1]).exists()


@pytest.mark.parametrize("block", BLOCKS["python"], ids=lambda block: block.split("\n")[0])
def test_python_blocks(block, tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_own_kernel_and_own_data_from_the_command_line(kl):
    kernel, data = (
        next(block for block in BLOCKS["python"] if name in block) for name in ("class Cauchy", "class Rings")
    )
    Path("mine.py").write_text(kernel + "\n\n" + data)
    result = kl("fit", "--kernel", "mine:Cauchy", "--data", "mine:Rings", "--label-noise", 0.1, "--epochs", 2)
    assert result.code == 0, result.err
    assert "test error, noisy labels" in result.out


def test_named_files_exist():
    tree = README.split("## Files")[1].split("```")[1]
    for name in re.findall(r"^  ([\w/]+(?:\.py)?)", tree, re.MULTILINE):
        assert (ROOT / "kl" / name).exists(), name
    for path in re.findall(r"!?\[[^]]*\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_readme_has_every_command():
    from recipes.app import app

    commands = {each.name or each.callback.__name__ for each in app.registered_commands}
    commands |= {each.name for each in app.registered_groups}
    assert {"fit", "data"} <= commands
    assert not [name for name in commands if f"\nkl {name} " not in README and f"`kl {name} " not in README]
