"""One experiment, or all of them, from options to files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from kl.errors import InputError, KLError
from recipes.output.hardware import origin
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments import EXPERIMENTS
from recipes.reproduce.page.presentation import Presentation
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Result
from recipes.reproduce.sweep.store import Store
from recipes.reproduce.sweep.sweep import Sweep

log = logging.getLogger(__name__)

SCHEMA = 1
WARNINGS = {  # by the source of the rows
    "cifar10-jpeg": "CIFAR-10 numbers are from a lossy JPEG copy of the images, not from the original pixels",
    "digits": "scikit-learn's digits stand in for the sets of the papers, which are not on disk or too large",
}


class Runner:
    """Runs experiments. Their points are kept in one folder, so that experiments share them.

    Args:
        setting: the scale, and where to compute.
        log_dir: the folder of `points/`, and of NAME-SCALE/ with the output of each experiment.
    """

    def __init__(self, setting: Setting, log_dir: Path) -> None:
        self.setting, self.log_dir = setting, log_dir
        self.store = Store(log_dir / "points")
        self.sweep = Sweep(self.store, setting.context)

    def run(self, experiment: Experiment) -> tuple[dict[str, Any], Presentation]:
        """Compute missing points, draw, write, and return the record and the presentation.

        Raises:
            KLError: a point cannot be computed; those before it are kept.
        """
        from callbacks.figures import figure_style
        from recipes.reproduce.page.output import write_experiment

        results = self.compute(experiment)
        with figure_style():
            shown = experiment.present(self.setting, results)
        record = self.record(experiment, results, shown)
        write_experiment(self.folder(experiment), record, shown)
        return record, shown

    def compute(self, experiment: Experiment) -> dict[Point, Result]:
        """The results of all points of an experiment; points that depend on results are computed after them."""
        results: dict[Point, Result] = {}
        while True:
            points = experiment.points(self.setting, results)
            if all(point in results for point in points):
                return {point: results[point] for point in points}
            results |= self.sweep.run([point for point in points if point not in results])

    def folder(self, experiment: Experiment) -> Path:
        """The folder of an experiment's figures and numbers."""
        return self.log_dir / f"{experiment.name}-{self.setting.scale}"

    def record(self, experiment: Experiment, results: dict[Point, Result], shown: Presentation) -> dict[str, Any]:
        """The content of an experiment's results.json."""
        points = [self.store.record(point) or {} for point in results]
        sources = {str(result["data_source"]) for result in results.values() if "data_source" in result}
        return {
            "schema": SCHEMA,
            "experiment": experiment.name,
            "title": experiment.title,
            "source": experiment.source,
            "scale": self.setting.scale,
            **origin(),
            "points_commits": sorted({str(each.get("commit")) for each in points}),
            "points_machines": list({str(each.get("machine")): each.get("machine") for each in points}.values()),
            "points": len(points),
            "seconds_of_points": sum(each.get("seconds", 0.0) for each in points),
            "data_sources": sorted(sources),
            "warnings": [text for source, text in WARNINGS.items() if source in sources],
            **shown.as_dict(),
            "log_dir": str(self.folder(experiment)),
        }


def run_named(name: str, setting: Setting, log_dir: Path, as_json: bool = False) -> None:
    """`kl reproduce NAME`: one experiment, or all with a report.

    Raises:
        InputError: there is no experiment of that name.
        KLError: a point cannot be computed.
    """
    from recipes.output.report import print_json
    from recipes.reproduce.page.html import write_report
    from recipes.reproduce.page.output import print_experiment

    runner = Runner(setting, log_dir)
    done: list[tuple[dict[str, Any], Presentation]] = []
    failed: dict[str, str] = {}
    for experiment in choose(name):
        log.info("%s: %s", experiment.name, experiment.title)
        try:
            record, shown = runner.run(experiment)
        except KLError as error:
            if name != "all":
                raise
            failed[experiment.name] = str(error)  # the others go on
            log.error("%s failed: %s", experiment.name, error)
            continue
        done.append((record, shown))
        if not as_json:
            print_experiment(record, shown, runner.folder(experiment))
            print()
    if name != "all":
        if as_json:
            print_json(done[0][0])
        return
    path = log_dir / f"report-{setting.scale}.html"
    write_report(path, done, failed)
    if as_json:
        print_json({"experiments": [record for record, _ in done], "failed": failed, "report": str(path)})
    else:
        print(f"report: {path}")
    if failed:
        raise KLError(f"{len(failed)} of {len(done) + len(failed)} experiments failed: {', '.join(failed)}")


def choose(name: str) -> list[Experiment]:
    """The experiment of that name, or all.

    Raises:
        InputError: there is no experiment of that name.
    """
    from difflib import get_close_matches

    if name == "all":
        return list(EXPERIMENTS.values())
    if name not in EXPERIMENTS:
        close = get_close_matches(name, EXPERIMENTS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"NAME must be all or one of {', '.join(EXPERIMENTS)}; got {name!r}{hint}")
    return [EXPERIMENTS[name]]
