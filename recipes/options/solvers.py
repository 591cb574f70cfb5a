"""The solvers that `--solver` names, one entry each, and the options that each takes. Nothing here imports torch."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
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
    named: Mapping[str, str] = field(default_factory=dict)
    """Options whose argument of the machine has another name."""
    grouped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Arguments of the machine that are dicts: for each the options in it, by the option the name in the dict."""
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
        """The options that the machine takes, without those that the solver fixes."""
        return self.own_arguments.union(*self.grouped.values())

    @property
    def own_arguments(self) -> set[str]:
        """The options that are arguments of the machine's class by themselves."""
        names = {argument: option for option, argument in self.named.items()}
        found = {names.get(each, each) for each in inspect.signature(self.machine_class).parameters}
        return found - self.fixed.keys() - self.grouped.keys()


_OF_ROUNDS = ("metric", "bandwidth_factor", "by", "round_solver", "round_epochs", "ridge")
OF_ROUNDS = {"learn_features": "rounds", "metric_power": "power", **{name: name for name in _OF_ROUNDS}}
"""The options of --learn-features, by the names of `kl.FeatureOptions`."""

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
        grouped={"features": OF_ROUNDS},
        plan="recipes.plan.general:plan_general",
    ),
    "eigenpro4": Solver(
        "kl.general.machine:GeneralKernelMachine",
        "--centers, projected after several steps",
        grouped={"features": OF_ROUNDS},
        plan="recipes.plan.general:plan_general",
    ),
    "pcg": Solver(
        "kl.exact.machine:ConjugateGradientMachine",
        "preconditioned conjugate gradients, an iteration an epoch",
        plan="recipes.plan.pcg:plan_pcg",
    ),
    "rfm": Solver(
        "kl.features.machine:RecursiveFeatureMachine",
        "recursive feature machine, which --learn-features chooses",
        named={"learn_features": "rounds", "metric_power": "power"},
        plan="recipes.plan.rfm:plan_rfm",
    ),
}

SOLVER_HELP = "; ".join(f"{name}: {solver.help}" for name, solver in SOLVERS.items()) + "."


ROUNDS = 5  # of --solver rfm without --learn-features
ROUND_SOLVERS = ("rfm", "eigenpro")  # with --learn-features both are rfm


def with_rounds(options: Any, epochs: int) -> Any:
    """The options of --learn-features without a solver as those of rfm: its rounds, an epoch for each and two more.

    Solvers with --centers learn before their epochs, and keep their options.

    Args:
        options: a `SolverOptions`.
        epochs: the default of --epochs.

    Raises:
        InputError: another solver, or epochs, is given as well.
    """
    from kl.checks import check_count, check_positive
    from kl.errors import InputError

    if options.learn_features is None and options.solver != "rfm":
        return options
    check_positive("metric_power", options.metric_power)  # here, because the library calls it power, as the kernel's
    if options.solver in SOLVERS and SOLVERS[options.solver].grouped:
        check_count("learn_features", options.learn_features)
        return options
    if options.solver not in ROUND_SOLVERS:
        raise InputError(
            f"learn_features solves its rounds by --round-solver; got solver {options.solver}: leave --solver out, or "
            "give eigenpro4 to train on all rows by --centers"
        )
    if options.epochs != epochs:
        raise InputError(
            f"epochs are the rounds of learn_features and two more; got {options.epochs}: leave --epochs out, or give "
            "--round-epochs for the epochs of EigenPro in a round"
        )
    rounds = ROUNDS if options.learn_features is None else check_count("learn_features", options.learn_features)
    return replace(options, solver="rfm", learn_features=rounds, epochs=rounds + 2)


def check_ranks(options: Any, ranks: int) -> None:
    """Check that so many ranks can train together, before any of them starts.

    Args:
        options: a `SolverOptions`.
        ranks: processes that share the run.

    Raises:
        InputError: the solver trains on one device, and there are more.
    """
    from kl.errors import InputError

    name = "rfm" if options.learn_features is not None and options.solver in ROUND_SOLVERS else options.solver
    if ranks > 1 and name in SOLVERS and not SOLVERS[name].machine_class.shares_ranks:
        raise InputError(f"devices must be 1 with {SOLVERS[name].machine_class.method}; got {ranks}: use --devices 1")


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
    solver, learns = SOLVERS[name], any(getattr(group, "learn_features", None) is not None for group in groups)
    for option, value in _changed(groups):
        users = [other for other, each in SOLVERS.items() if option in each.own_arguments | each.fixed.keys()]
        if not users or option in (solver.arguments if learns else solver.own_arguments):
            continue
        if option in solver.arguments:
            raise InputError(
                f"{option} is for the rounds of --learn-features with --solver {name}; got {value}: give "
                "--learn-features as well"
            )
        takers = [other for other in users if option in SOLVERS[other].own_arguments]
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
