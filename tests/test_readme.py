"""README and the pages of docs/ do what they say: blocks run in the order of the page, and links lead somewhere.

README runs in the fast suite, the pages with the slow tests.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from pages import AT_THE_ROOT, DOCS, README, ROOT, anchors, blocks, commands, links, text
from PIL import Image

REAL = ("mnist", "fashion-mnist", "cifar10")
"""Sets that are not in the repository."""
PAGES = [page for page in DOCS if blocks(page, "bash", "python")]
COMMANDS = {
    (page, command): shlex.split(command)[1:]
    for page in (README, *PAGES)
    for _, code in blocks(page, "bash")
    for command in commands(code, "kl")
}


def devices(words):
    """The GPUs that a command asks for."""
    return int(words[words.index("--devices") + 1]) if "--devices" in words and "cpu" not in words else 0


def in_order(page):
    """What runs on every machine: (language, code or words of a command)."""
    for language, code in blocks(page, "bash", "python"):
        if language == "python":
            yield language, code
        for command in commands(code, "kl") if language == "bash" else ():
            words = COMMANDS[page, command]
            slow = page == README and words[0] == "reproduce" and len(words) > 1
            if not devices(words) and not set(REAL) & set(words) and not slow:
                yield language, words


def cheap(words):
    """The words of a command with fewer epochs, or of a smaller experiment."""
    if words[0] == "fit" and not {"--epochs", "--learn-features", "--config"} & set(words):
        return [*words, "--epochs", "1"]
    if words[0] == "reproduce" and len(words) > 1:
        return [*words, "--scale", "tiny"]
    return words


def make_inputs(page):
    """The files that the page's reader has."""
    rng = np.random.default_rng(0)
    rows = rng.integers(30, 200, size=(60, 2))
    Path("houses.csv").write_text(
        "area,zip,price\n" + "".join(f"{area},{zipped % 5},{area * 3}\n" for area, zipped in rows)
    )
    people = [f"{age},{'basic' if plan % 2 else 'plus'},{age},{'yes' if age > 99 else 'no'}\n" for age, plan in rows]
    Path("customers.csv").write_text("age,plan,minutes,left\n" + "".join(people))
    np.save("embeddings.npy", rng.normal(size=(90, 20)))
    np.save("labels.npy", np.arange(90) % 3)
    for name in ("pets/train/cat", "pets/train/dog", "new"):
        Path(name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(256, size=(12, 12), dtype=np.uint8)).save(Path(name, f"{i}.png"))
    csv = "csv:houses.csv" in text(page)
    Path("new.csv").write_text("zip,area\n7,50\n" if csv else "")
    np.savez("new.npz", x=np.zeros((2, 64), dtype=np.float32))


def run_page(page, kl, run_python):
    for language, code in in_order(page):
        if language == "python":
            run_python(code)
            if page.name == "extend.md" and "Trainer" not in code:  # "save this as mine.py", it says
                with Path("mine.py").open("a") as mine:
                    mine.write(code + "\n\n")
            continue
        if "--devices" in code:  # ranks are started as this process was, which must be kl
            in_a_process(["-m", "recipes", *cheap(code)])
            continue
        result = kl(*cheap(code))
        assert result.code == 0, f"kl {' '.join(code)}\n{result.err}"
        for option in {"--save", "--output"} & set(code):
            assert Path(code[code.index(option) + 1]).exists()


def in_this_process(code):
    exec(compile(code, "README.md", "exec"), ModuleType("block").__dict__)


def in_a_process(code):
    words = ["-c", code] if isinstance(code, str) else code
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_runs(kl):
    make_inputs(README)
    run_page(README, kl, in_this_process)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_run(kl, page):
    make_inputs(page)
    run_page(page, kl, in_a_process)


@pytest.mark.slow
def test_readme_reproduces(kl):
    found = [words for (page, _), words in COMMANDS.items() if page == README and words[0] == "reproduce"]
    for words in found:
        result = kl(*cheap(words))
        assert result.code == 0, result.err


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({each for each in COMMANDS if set(REAL) & set(COMMANDS[each])}), ids=str)
def test_commands_on_real_data(kl, command, data_dir, monkeypatch):
    words = COMMANDS[command]
    if devices(words) > torch.cuda.device_count():
        pytest.skip(f"needs {devices(words)} GPUs")
    monkeypatch.setenv("KL_DATA_DIR", data_dir)
    result = kl(*words, *(["--fast-dev-run"] if words[0] == "fit" else []))
    assert result.code == 0, result.err


def test_own_kernel_and_own_data_from_the_command_line(kl):
    page = ROOT / "docs" / "extend.md"
    code = [code for _, code in blocks(page, "python")]
    Path("mine.py").write_text(code[0] + "\n\n" + next(each for each in code if "class Rings" in each))
    result = kl("fit", "--kernel", "mine:Cauchy", "--data", "mine:Rings", "--label-noise", 0.1, "--epochs", 2)
    assert result.code == 0, result.err
    assert "test error, noisy labels" in result.out


def test_make_has_the_targets():
    for page in (README, *PAGES):
        for _, code in blocks(page, "bash"):
            for command in commands(code, "make"):
                done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr


def test_readme_is_short_and_begins_with_the_two_commands():
    lines = text(README).splitlines()
    assert len(lines) <= 150
    assert commands(blocks(README, "bash")[0][1], "make") == ["make run", "make test"]
    tasks = text(README).split("## Five tasks")[1].split("\n## ")[0]
    found = re.findall(r"```\w+\n(.*?)```", tasks, re.DOTALL)
    assert len(found) == 5
    assert max(block.count("\n") for block in found) <= 6


@pytest.mark.parametrize("page", sorted({*AT_THE_ROOT, *DOCS}), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in links(page):
        if ":" in link:
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_file(), link
        assert not anchor or anchor in anchors(path), link


def test_every_page_is_in_the_navigation():
    navigation = text(ROOT / "mkdocs.yml").split("\nnav:")[1]
    for page in DOCS:
        assert page.relative_to(ROOT / "docs").as_posix() in navigation, page


def test_every_experiment_of_record_is_in_the_navigation():
    navigation = text(ROOT / "mkdocs.yml").split("\nnav:")[1]
    found = sorted((ROOT / "lightning_logs/reference/reproduce").glob("*-full/results.json"))
    assert found
    for record in found:
        assert f"results/experiments/{record.parent.name.removesuffix('-full')}.md" in navigation


def test_every_public_name_is_in_the_reference():
    import callbacks
    import datamodules
    import kl

    pages = "\n".join(text(page) for page in DOCS if page.parent.name == "reference")
    for module in (kl, datamodules, callbacks):
        for name in module.__all__:
            if isinstance(getattr(module, name), ModuleType):
                continue
            assert f"::: {module.__name__}.{name}\n" in pages, name


def test_every_idea_has_its_source_and_its_tests():
    pages = [page for page in DOCS if page.parent.name == "how" and page.stem not in ("index", "devices")]
    assert len(pages) >= 6
    for page in pages:
        table = text(page).split("## Source and tests\n")[1]
        assert "](../../kl/" in table, page
        assert "](../../tests/" in table, page


def test_every_command_is_used_on_a_page():
    from recipes.app import app

    names = {each.name or each.callback.__name__ for each in app.registered_commands}
    names |= {each.name for each in app.registered_groups}
    assert {"fit", "data"} <= names
    pages = "\n".join(text(page) for page in (README, *DOCS))
    assert not [name for name in names if f"\nkl {name} " not in pages and f"`kl {name}" not in pages]


def test_the_files_that_are_described_exist():
    tree = text(ROOT / "docs/reference/files.md").split("```")[1]
    for name in re.findall(r"^  ([\w/]+(?:\.py)?)", tree, re.MULTILINE):
        assert (ROOT / "kl" / name).exists(), name
