"""Dependencies point one way: recipes -> {callbacks, datamodules} -> kl -> torch.

Three files of kl are exceptions, because they only give a name to what stands above: kl.data, kl.callbacks, and
kl.__main__, which is the command. Nothing imports them but users.
"""

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
NAMES_ABOVE = {"kl.data": "datamodules", "kl.callbacks": "callbacks", "kl.__main__": "recipes"}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
# Imported inside functions, so that `kl --help` is fast.
HEAVY = {"torch", "torchvision", "torchmetrics", "sklearn", "scipy", "pandas", "matplotlib", "tensorboard", *LIGHTNING}
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
    package, *_ = parts = path.relative_to(ROOT).with_suffix("").parts
    allowed = ALLOWED[package] | {NAMES_ABOVE.get(".".join(parts))}
    for line, module in modules(ast.walk(parse(path)), names=True):
        top = module.split(".")[0]
        assert top not in OURS or top in allowed, f"{path.name}:{line}: {package} must not import {module}"
        by_users = module.startswith(tuple(NAMES_ABOVE)) and parts != ("kl", "__init__")
        assert not by_users, f"{path.name}:{line}: import from where the name is defined, not from {module}"
        assert top != "click", f"{path.name}:{line}: typer has no click dependency any more"


# From top to bottom: what stands in a line imports from lines below it, and from its own folder. Names without a slash
# after them are single files.
FLOORS = {
    "kl": (
        "__main__ data callbacks",
        "testing",
        "estimators tuning estimate",
        "loading",
        "general",
        "features",
        "solve",
        "eigenpro",
        "model",
        "exact",
        "rkhs",
        "machines",
        "products",
        "kernels",
        "distributed",
        "rows",
        "compiled system",
        "checks metrics probabilities",
        "errors",
    ),
    "recipes": ("__main__", "cli", "app", "commands plan bench reproduce report", "run", "options", "output"),
}


def floor_of(package, room):
    (found,) = [i for i, rooms in enumerate(FLOORS[package]) if room in rooms.split()] or [None]
    if found is None and (ROOT / package / room / "machine.py").is_file():  # a solver, which needs nothing named here
        return floor_of(package, "general")
    assert found is not None, f"{package}.{room} has no floor: give it one in {Path(__file__).name}"
    return found


def is_module(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imported_modules(path):
    """(line, module) of all imports of our own modules, those inside functions included."""
    for node in ast.walk(parse(path)):
        for line, module in modules([node]):
            if module.split(".")[0] not in OURS:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in {f"{module}.{name}" if is_module(f"{module}.{name}") else module for name in names} or {module}:
                yield line, name


@pytest.mark.parametrize("path", each(*FLOORS))
def test_rooms_import_downwards(path):
    package, room, *_ = path.relative_to(ROOT).with_suffix("").parts
    if room == "__init__":
        return
    for line, module in imported_modules(path):
        parts = module.split(".")
        if parts[0] != package or parts[1:2] == [room]:
            continue
        assert len(parts) > 1, f"{path.name}:{line}: import from the room, not from {package}"
        above, below = floor_of(package, room), floor_of(package, parts[1])
        assert above < below, f"{path.name}:{line}: {package}.{room} lies below {module}, or beside it"


def test_no_import_circle():
    """Of files, in the whole tree, imports inside functions included."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in OURS
        for path in FILES[package]
    }
    left = {
        name: {module for _, module in imported_modules(path)} - {name, *NAMES_ABOVE} for name, path in paths.items()
    }
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"import circles among {sorted(left)}"


@pytest.mark.parametrize("path", each("kl"))
def test_only_machines_and_distributed_import_lightning(path):
    _, *folders, file = path.relative_to(ROOT).parts
    imports = [module for _, module in modules(ast.walk(parse(path))) if module.split(".")[0] in LIGHTNING]
    allowed = folders in (["machines"], ["distributed"]) or file == "machine.py"
    assert allowed or not imports, f"{path.name} imports {imports}: put what needs Lightning into a machine.py"


def test_the_run_on_plain_tensors_needs_no_lightning():
    """From kl.eigenpro.run through all that it imports of kl."""
    left, seen = ["kl.eigenpro.run"], {"kl"}  # whose __init__ imports every name that users have
    while left:
        path = ROOT / (left.pop().replace(".", "/") + ".py")
        for _, module in modules(ast.walk(parse(path if path.is_file() else path.with_suffix("") / "__init__.py"))):
            assert module.split(".")[0] not in LIGHTNING, f"{path.name} imports {module}"
            if module.split(".")[0] == "kl" and module not in seen:
                seen.add(module)
                left.append(module)
    assert "kl.eigenpro.fitted" in seen


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
