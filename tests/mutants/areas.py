"""The faults by area: every module of this folder that has a list MUTANTS."""

import importlib
import pkgutil

import mutants
from mutants import Mutant

AREAS: dict[str, list[Mutant]] = {
    module.name: importlib.import_module(f"mutants.{module.name}").MUTANTS
    for module in pkgutil.iter_modules(mutants.__path__)
    if module.name not in ("__main__", "areas")
}
