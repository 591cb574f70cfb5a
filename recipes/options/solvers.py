"""The solvers that `--solver` names, one entry each, and the options that each takes. Nothing here imports torch."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kl.machines.machine import TrainedExpansion


@dataclass(frozen=True)
class Solver:
    """A way to train. Its options are the arguments of its machine that have the name of an option."""

    machine: str
    """The machine's class, as "package.module:Class"."""
    help: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the machine that the solver's name determines."""
    plan: str = "recipes.plan.prepared:plan_memory"
    """The function that adds to memory and parameters in `kl plan`, as "package.module:function"."""

    @property
    def machine_class(self) -> type[TrainedExpansion]:
        """The machine's class; this property imports torch."""
        return pkgutil.resolve_name(self.machine)

    @property
    def plan_function(self) -> Callable[..., Any]:
        """The function of `plan`; it takes a prepared machine and a `recipes.plan.prepared.PreparedRun`."""
        return pkgutil.resolve_name(self.plan)

    @property
    def arguments(self) -> set[str]:
        """The arguments of the machine's class, without those that the solver fixes."""
        return set(inspect.signature(self.machine_class).parameters) - self.fixed.keys()


SOLVERS = {
    "eigenpro": Solver(
        "kl.eigenpro.machine:KernelMachine",
        "EigenPro 2, a centre at each training row",
        plan="recipes.plan.eigenpro:plan_eigenpro",
    ),
    "eigenpro3": Solver(
        "kl.general.machine:GeneralKernelMachine",
        "--centers, projected after each step",
        fixed={"projection_period": 1},
        plan="recipes.plan.general:plan_general",
    ),
    "eigenpro4": Solver(
        "kl.general.machine:GeneralKernelMachine",
        "--centers, projected after several steps",
        plan="recipes.plan.general:plan_general",
    ),
    "pcg": Solver(
        "kl.exact.machine:ConjugateGradientMachine",
        "preconditioned conjugate gradients, an iteration an epoch",
        plan="recipes.plan.pcg:plan_pcg",
    ),
}

SOLVER_HELP = "; ".join(f"{name}: {solver.help}" for name, solver in SOLVERS.items()) + "."


def check_solver_options(name: str, *groups: Any) -> None:
    """Check that no option is given that only other solvers use.

    Args:
        name: the value of --solver.
        groups: groups of options, frozen dataclasses with defaults.

    Raises:
        InputError: there is no such solver, or it does not use an option whose value is not the default.
    """
    from kl.checks import check_one_of
    from kl.errors import InputError

    check_one_of("solver", name, SOLVERS)
    solver = SOLVERS[name]
    for option, value in _changed(groups):
        users = [other for other, each in SOLVERS.items() if option in each.arguments | each.fixed.keys()]
        if not users or option in solver.arguments:
            continue
        takers = [other for other in users if option in SOLVERS[other].arguments]
        if option not in solver.fixed:
            raise InputError(f"{option} is for --solver {_listed(users)}; got {value} with {name}")
        if str(solver.fixed[option]) != str(value):
            raise InputError(
                f"{option} must be {solver.fixed[option]} with --solver {name}; got {value}: use --solver "
                f"{_listed(takers)}"
            )


def _changed(groups: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for group in groups:
        for each in fields(group):
            if (value := getattr(group, each.name)) != each.default:
                yield each.name, value


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
