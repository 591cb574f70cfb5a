"""Dependencies point one way: recipes -> {callbacks, datamodules} -> kl -> torch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("kl", "datamodules", "callbacks", "recipes")
ALLOWED = {
    "kl": {"kl"},
    "datamodules": {"datamodules", "kl"},
    "callbacks": {"callbacks", "kl"},
    "recipes": {"recipes", "callbacks", "datamodules", "kl"},
}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
# Imported inside functions, so that `kl --help` is fast. kl.errors imports nothing, but kl/__init__ imports torch.
HEAVY = {"torch", "torchvision", "torchmetrics", "sklearn", "scipy", "matplotlib", "tensorboard", *LIGHTNING}
HEAVY |= {"numpy", "kl", "datamodules", "callbacks"}
FILES = {package: sorted((ROOT / package).rglob("*.py")) for package in OURS}


def modules(nodes, names=False):
    """(line, dotted module) of every import among the nodes, with names=True also of what `from` imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write absolute imports"
            yield node.lineno, node.module
            if names:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def at_import(body):
    """The statements that run when the module is imported."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from at_import(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from at_import(handler.body)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def each(*packages):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for package in packages for path in FILES[package]]


def test_there_are_files_to_look_at():
    assert all(FILES[package] for package in OURS)


@pytest.mark.parametrize("path", each(*OURS))
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for line, module in modules(ast.walk(parse(path))):
        top = module.split(".")[0]
        assert top not in OURS or top in ALLOWED[package], f"{path.name}:{line}: {package} must not import {module}"
        assert top != "click", f"{path.name}:{line}: typer has no click dependency any more"


@pytest.mark.parametrize("path", each("kl"))
def test_only_parts_of_lightning_import_it(path):
    tree = parse(path)
    imports = [module for _, module in modules(ast.walk(tree)) if module.split(".")[0] in LIGHTNING]
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    defines = any(base.endswith(("LightningModule", "LightningDataModule", "Strategy", "Launcher")) for base in bases)
    assert defines or not imports, f"{path.name} imports {imports} but defines no part of Lightning"


def test_the_command_line_imports_nothing_heavy_before_a_command_runs():
    """From recipes.cli through all recipes that are imported with it; others may be imported inside functions."""
    left, seen = ["recipes", "recipes.__main__", "recipes.cli", "recipes.app"], set()
    while left:
        name = left.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        path = path if path.is_file() else ROOT / name.replace(".", "/") / "__init__.py"
        if name in seen or not path.is_file():  # `from recipes import NAME`, where NAME is no module
            continue
        seen.add(name)
        for line, module in modules(at_import(parse(path).body), names=True):
            top = module.split(".")[0]
            assert top not in HEAVY, f"{path.name}:{line}: import {module} inside a function"
            left += [module, module.rpartition(".")[0]] if top == "recipes" else []
    assert "recipes.cli" in seen
