"""`kl bench stability`: many small runs with automatic parameters, and which of them diverged or had to slow down."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from recipes.options.groups import Accelerator, DataDir, OutputOptions, _in_output, _in_run, takes

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import Kernel

log = logging.getLogger(__name__)

DEFAULT_FOLDER = "lightning_logs/bench/stability"
DIRECT_ROWS = 2000  # up to this n the norm is compared with that of the direct solution
RADIAL = ("gaussian", "laplacian", "exponential-power", "matern32", "matern52", "inverse-multiquadric")
OTHERS: dict[str, dict[str, Any]] = {"polynomial": {"degree": 3}, "relu-ntk": {}, "relu-nngp": {}}
IMAGES = ("mnist", "fashion-mnist", "cifar10")
MADE = ("clusters", "duplicates", "line", "cube", "far", "extreme")
DATA = ("digits", *IMAGES, "synthetic1", "synthetic2", *MADE)


@dataclass(frozen=True)
class StabilityOptions:
    """How many runs, on which data, and where they are recorded."""

    data_dir: DataDir = None
    scale: Annotated[
        str, _in_run(help="quick: 24 runs, about a minute on two cores; full: all.", metavar="quick|full")
    ] = "quick"
    accelerator: Accelerator = "cpu"
    log_dir: Annotated[
        str, _in_output(help="Folder of the results; the runs it holds are not done again.", metavar="DIR")
    ] = DEFAULT_FOLDER


@dataclass(frozen=True)
class Case:
    """One run. Its fields are its name: a run with the same ones is not done twice."""

    group: str
    """Which question the run belongs to."""
    data: str
    n: int
    kernel: str
    factor: float = 1.0
    """Times the automatic bandwidth."""
    batch: str = "auto"
    """m: auto, a number, or one of m*/4, 4m* and n."""
    top_q: str = "auto"
    """q: auto, a number, or large (n/2)."""
    seed: int = 0

    @property
    def key(self) -> str:
        """The case on one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def epochs(self) -> int:
        """Epochs of the run: fewer where they are long."""
        return 20 if self.n <= 500 else 8 if self.n <= 2000 else 2

    def describe(self) -> str:
        """The case as a person reads it."""
        forced = "".join(
            f" {name}={value}" for name, value in (("m", self.batch), ("q", self.top_q)) if value != "auto"
        )
        return f"{self.data} n={self.n} {self.kernel} bandwidth x{self.factor:g}{forced} seed {self.seed}"


def all_cases() -> list[Case]:
    """Every case of `--scale full`, by group."""
    kernels = [Case("kernels", "digits", 500, k, f) for k in (*RADIAL, "sum") for f in (1, 0.25, 4, 16)]
    kernels += [Case("kernels", "digits", 500, k) for k in OTHERS]
    data = [Case("data", d, 1000, k) for d in DATA for k in ("laplacian", "gaussian", "relu-ntk")]
    hard = ("mnist", "cifar10", "line", "cube", "clusters", "duplicates", "far", "extreme", "synthetic1")
    bandwidths = [Case("bandwidths", d, 500, "gaussian", f) for d in hard for f in (0.25, 4, 16)]
    batches = [
        Case("batches", d, 200, k, batch=m)
        for d in ("digits", "mnist", "line")
        for k in ("laplacian", "gaussian")
        for m in ("1", "m*/4", "4m*", "n")
    ]
    ranks = [
        Case("ranks", d, 500, k, top_q=q)
        for d in ("digits", "line", "mnist")
        for k in ("laplacian", "gaussian", "relu-ntk")
        for q in ("0", "1", "large")
    ]
    small = [
        Case("sizes", d, n, k, seed=s) for d in ("mnist", "cube") for n in (50, 200) for k in RADIAL[:2] for s in (0, 1)
    ]
    middle = [Case("sizes", d, n, k) for d in ("mnist", "fashion-mnist") for n in (2500, 5000) for k in RADIAL[:2]]
    large = [Case("sizes", "mnist", 20000, "laplacian"), Case("sizes", "fashion-mnist", 20000, "gaussian")]
    seeds = [
        Case("seeds", d, 300, k, seed=s) for d in ("digits", "synthetic1") for k in RADIAL[:2] for s in (1, 2, 3, 4)
    ]
    return [*kernels, *data, *bandwidths, *batches, *ranks, *small, *middle, *large, *seeds]


def quick_cases() -> list[Case]:
    """The cases of `--scale quick`: some of each group that need no download, and are small."""
    local = [case for case in all_cases() if case.data not in IMAGES and case.n <= 1000]
    chosen: list[Case] = []
    for group, count in (("kernels", 8), ("data", 5), ("bandwidths", 4), ("batches", 3), ("ranks", 3), ("seeds", 1)):
        members = [case for case in local if case.group == group]
        chosen += [members[(i * 5 + 1) % len(members)] for i in range(count)]  # 5: other bandwidths with each kernel
    return chosen


@takes(StabilityOptions, OutputOptions)
def stability(options: StabilityOptions, output: OutputOptions) -> None:
    """Train many small machines with automatic parameters and count divergences, NaN and cuts of the step size.

    An interrupted experiment goes on where it was. For example: kl bench stability --scale full
    """
    from kl.checks import check_one_of
    from recipes.bench.record import SCALES
    from recipes.output.report import print_json
    from recipes.run.trainer import quiet_lightning, require_writable

    check_one_of("scale", options.scale, SCALES)
    quiet_lightning()
    require_writable(options.log_dir)
    folder = Path(options.log_dir)
    cases = quick_cases() if options.scale == "quick" else all_cases()
    runs = run_cases(cases, folder, options)
    write_results(runs, folder)
    if output.json:
        print_json({"scale": options.scale, **summary(runs), "runs": runs, "log_dir": str(folder)})
    else:
        print_summary(runs, folder)


def run_cases(cases: list[Case], folder: Path, options: StabilityOptions) -> list[dict[str, Any]]:
    """Every case's results, in order: read where the folder holds them, else run and recorded at once."""
    folder.mkdir(parents=True, exist_ok=True)
    done = read_runs(folder)
    missing = [case for case in cases if case.key not in done]
    if len(missing) < len(cases):
        log.info("%d of %d runs are in %s already", len(cases) - len(missing), len(cases), folder)
    total = sum(_cost(case) for case in missing)
    start, spent = time.perf_counter(), 0.0
    for i, case in enumerate(missing):
        with _quiet():
            done[case.key] = result = run_case(case, options)
        with (folder / "runs.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        spent += _cost(case)
        seconds = time.perf_counter() - start
        log.info(
            "run %d/%d: %s: %s; %.0f s, about %.0f s left",
            i + 1,
            len(missing),
            case.describe(),
            _outcome(result),
            seconds,
            seconds * (total - spent) / spent,
        )
    return [done[case.key] for case in cases]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what each run says of itself: what matters of it is recorded."""
    logger = logging.getLogger("kl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cost(case: Case) -> float:
    """About how long a case takes, in units of a small one."""
    return 1 + (case.n / 2000) ** 2 + (case.batch == "1") * case.n / 200


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The recorded runs by the key of their case; neither those left out nor a line that an interrupt cut off."""
    found: dict[str, dict[str, Any]] = {}
    path = folder / "runs.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
            if not result["failed"]:  # else it is tried again: the data may be there now
                found[Case(**result["case"]).key] = result
        except (ValueError, KeyError, TypeError):
            continue
    if path.exists() and not path.read_bytes().endswith(b"\n"):  # so that the next line begins anew
        with path.open("a") as file:
            file.write("\n")
    return found


def run_case(case: Case, options: StabilityOptions) -> dict[str, Any]:
    """Train one machine and look at what came of it."""
    import pytorch_lightning as pl
    import torch

    import kl

    start = time.perf_counter()
    result: dict[str, Any] = {"case": asdict(case), "diverged": False, "nan": False, "cuts": 0, "failed": None}
    try:
        data = make_data(case, options.data_dir)
        data.prepare_data()
        data.setup()
        x, y = data.train_set.x, data.train_set.y
        kernel = make_kernel(case, x)
        critical = 0
        if "m*" in case.batch:
            planned = kl.KernelMachine(kernel, seed=case.seed)
            planned.prepare(x, y)
            assert planned.plan is not None  # prepare() made it
            critical = planned.plan.critical_batch_size
        sizes: dict[str, Any] = {"m*/4": max(1, critical // 4), "4m*": 4 * critical, "n": len(x), "auto": "auto"}
        batch = sizes[case.batch] if case.batch in sizes else int(case.batch)
        ranks: dict[str, Any] = {"large": len(x) // 2, "auto": "auto"}
        top_q = ranks[case.top_q] if case.top_q in ranks else int(case.top_q)
        machine = kl.KernelMachine(
            kernel, batch_size=min(batch, len(x)) if batch != "auto" else batch, top_q=top_q, seed=case.seed
        )
        trainer = pl.Trainer(
            accelerator={"cuda": "gpu"}.get(options.accelerator, options.accelerator),
            devices=1,
            max_epochs=case.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        try:
            trainer.fit(machine, datamodule=data)
        except kl.DivergenceError:
            result["diverged"] = True
        except SystemExit as stop:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stop
        plan, values = machine.plan, machine.fitted.flush()
        assert plan is not None  # fit() made it
        result |= {
            "cuts": machine.guard.cuts,
            "nan": not bool(torch.isfinite(machine.alpha).all() and torch.isfinite(values).all()),
            "train_mse": machine.train_metrics.get("train/mse"),
            "target_mean_square": float(y.square().mean()),
            "rkhs_norm": machine.rkhs_norm,
            "batch_size": plan.batch_size,
            "critical_batch_size": plan.critical_batch_size,
            "top_q": plan.top_q,
            "subsample": plan.subsample,
            "planned_step_size": plan.step_size,
            "step_size": machine.step_size,
            "epochs": case.epochs,
            "direct_norm": kl.interpolate(kernel, x, y).rkhs_norm if len(x) <= DIRECT_ROWS else None,
        }
    except kl.KLError as error:  # no data on disk, or a kernel matrix that cannot be factorised: the others go on
        result["failed"] = str(error)
    return {**result, "seconds": time.perf_counter() - start}


def make_kernel(case: Case, x: Any) -> Kernel:
    """The kernel of a case with its bandwidths resolved on x and multiplied by the factor."""
    import kl

    if case.kernel == "sum":
        return _scaled("gaussian", case, x) + 0.5 * _scaled("laplacian", case, x)
    if case.kernel in OTHERS:
        return kl.build_kernel(case.kernel, **OTHERS[case.kernel]).resolve(x, seed=case.seed)
    return _scaled(case.kernel, case, x)


def _scaled(name: str, case: Case, x: Any) -> Kernel:
    import kl

    kernel: Any = kl.build_kernel(name).resolve(x, seed=case.seed)
    return replace(kernel, bandwidth=kernel.bandwidth * case.factor)


def make_data(case: Case, data_dir: str | None) -> KernelDataModule:
    """The data of a case: a known set, or arrays that are made to be difficult.

    clusters: 10 tight groups far apart; duplicates: every row five times; line: d = 1; cube: d = 3; far: rows near
    (1e4, ..., 1e4); extreme: one target of 1000 among those of about 1.
    """
    import torch

    from datamodules import ArrayDataModule, build_datamodule

    if case.data not in MADE:
        extra = {"grayscale": True} if case.data == "cifar10" else {}
        return build_datamodule(
            case.data,
            data_dir=data_dir,
            train_size=case.n,
            test_size=20,
            seed=case.seed,
            noise_seed=case.seed,
            batch_size=None,
            **extra,
        )
    generator = torch.Generator().manual_seed(case.seed)
    d = {"line": 1, "cube": 3}.get(case.data, 20)
    x = torch.randn(case.n, d, generator=generator)
    y = torch.sin(x @ torch.randn(d, 2, generator=generator))
    if case.data == "clusters":
        centres = 30 * torch.randn(10, d, generator=generator)
        x = centres[torch.arange(case.n) % 10] + 0.1 * x
    if case.data == "duplicates":
        rows = torch.arange(case.n) % max(1, case.n // 5)
        x, y = x[rows], y[rows]
    if case.data == "far":
        x = x + 1e4
    if case.data == "extreme":
        y[case.n // 2] = 1000.0
    return ArrayDataModule.from_arrays(x, y, x[:20], y[:20], seed=case.seed, batch_size=None)


def _outcome(run: dict[str, Any]) -> str:
    if run["failed"]:
        return f"left out: {run['failed']}"
    words = [word for word in ("diverged", "nan") if run[word]] + [f"{run['cuts']} cuts"] * bool(run["cuts"])
    return f"{', '.join(words) or 'steady'}, train mse {run['train_mse'] or math.nan:.2e}"


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all runs, and the cases that were not steady."""
    trained = [run for run in runs if not run["failed"]]
    return {
        "count": len(trained),
        "diverged": sum(run["diverged"] for run in trained),
        "nan": sum(run["nan"] for run in trained),
        "cut": sum(run["cuts"] > 0 for run in trained),
        "left_out": len(runs) - len(trained),
        "not_steady": [run["case"] for run in trained if run["diverged"] or run["nan"] or run["cuts"]],
        "seconds": sum(run["seconds"] for run in runs),
    }


def print_summary(runs: list[dict[str, Any]], folder: Path) -> None:
    """A table of the groups, and the runs that were not steady."""
    import typer

    from recipes.output.report import print_table

    rows = []
    for group in [*dict.fromkeys(run["case"]["group"] for run in runs), "all"]:
        members = [run for run in runs if group in ("all", run["case"]["group"])]
        found = summary(members)
        ratios = [ratio for run in members if (ratio := relative_mse(run)) is not None]
        counts = (found["count"], found["diverged"], found["nan"], found["cut"], found["left_out"])
        rows.append((group, *map(str, counts), f"{max(ratios, default=math.nan):.1e}"))
    print_table(
        f"stability of {len(runs)} runs",
        ("group", "runs", "diverged", "NaN", "step cut", "left out", "largest mse / that of f = 0"),
        rows,
    )
    for run in runs:
        if run["failed"] or run["diverged"] or run["nan"] or run["cuts"]:
            typer.echo(f"{Case(**run['case']).describe()}: {_outcome(run)}")
    typer.echo(f"results:     {folder}/results.json, results.csv, stability.png")


def relative_mse(run: dict[str, Any]) -> float | None:
    """The training mse over that of f = 0; below 1 the run has learned."""
    if run.get("train_mse") is None or not run.get("target_mean_square"):
        return None
    return run["train_mse"] / run["target_mean_square"]


def write_results(runs: list[dict[str, Any]], folder: Path) -> None:
    """results.json, results.csv and stability.png, each whole or not at all."""
    import io

    from kl.system.files import written_whole

    with written_whole(folder / "results.json") as file:
        file.write(json.dumps({**summary(runs), "runs": runs}, indent=1).encode())
    rows = [{**run["case"], **{name: value for name, value in run.items() if name != "case"}} for run in runs]
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with written_whole(folder / "results.csv") as file:
        file.write(text.getvalue().encode())
    with written_whole(folder / "stability.png") as file:
        draw(runs).savefig(file, format="png", dpi=120)


def draw(runs: list[dict[str, Any]]) -> Any:
    """The training mse of every run, relative to that of f = 0; runs that cut their step or diverged are marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    heights = [_height(run) for run in runs]
    for group in dict.fromkeys(run["case"]["group"] for run in runs):
        chosen = [i for i, run in enumerate(runs) if run["case"]["group"] == group]
        axes.scatter(chosen, [heights[i] for i in chosen], s=14, label=group)
    cut = [i for i, run in enumerate(runs) if run["cuts"]]
    lost = [i for i, run in enumerate(runs) if run["diverged"] or run["nan"]]
    if cut:
        axes.scatter(cut, [heights[i] for i in cut], s=70, facecolors="none", edgecolors="black", label="step cut")
    if lost:
        axes.scatter(lost, [1.0] * len(lost), s=70, marker="x", color="red", label="diverged or NaN")
    axes.axhline(1.0, linewidth=0.8, color="gray")
    axes.set(yscale="log", xlabel="run", ylabel="training mse / that of f = 0", title="Runs with automatic parameters")
    axes.legend(fontsize="small", ncols=4)
    return figure


def _height(run: dict[str, Any]) -> float:
    value = relative_mse(run)
    return max(value, 1e-16) if value is not None and math.isfinite(value) else math.nan
