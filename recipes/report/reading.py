"""What a run has left in its folder, checked; what is not there is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import require_values
from kl.system.wording import counted
from recipes.options.yaml_mapping import LONGEST, NotReadable, read_mapping
from recipes.output.fit_table import ROWS
from recipes.report.events import Curves, read_curves
from recipes.report.folders import MEND, OPTIONS, RESULTS, Found, read_file

LARGEST = 50_000_000  # bytes of a results.json or a picture
CLASSES = 2000  # of a confusion matrix that is drawn
MOST_COUNTED = 10**12  # rows of a class
PNG = b"\x89PNG\r\n\x1a\n"

Checked = Mapping[str, Any]
_NUMBERS = {
    *(name for ours, limit, _ in ROWS.values() for name in (ours, limit) if name),
    *("n", "d", "c", "ridge", "label_noise", "epochs", "validation_rows", "best_epoch", "batch_size", "step_size"),
    *("critical_batch_size", "top_q", "subsample", "centers", "seconds_total", "peak_memory_bytes"),
}
_TYPES: dict[str, Any] = {
    **dict.fromkeys(_NUMBERS, float | None),
    **dict.fromkeys(("data", "solver", "kernel", "noise_kind", "exact_skipped"), str | None),
    "kernel_parameters": dict | None,
    "seconds_per_epoch": list[float] | None,
    "last": dict | None,
}


@dataclass(frozen=True)
class Run:
    """A run as its page shows it."""

    folder: Path
    label: str
    curves: Curves
    options: dict[str, str] | None
    """Texts by name, as of config.yaml; None if there is no such file."""
    origin: Checked
    """command, commit, date and machine, as far as they are known."""
    finished: bool | None
    """None if it is unknown."""
    results: Checked
    """Numbers by the names of `kl fit --json`, as far as they are known."""
    rows: str
    """ "test" or "validation": the rows of val/*."""
    recorded: bool
    """Whether there is a record of what follows."""
    spectrum: Checked | None
    confusion: Checked | None
    worst_errors: list[dict[str, Any]] | None
    worst_images: bytes | None
    """The PNG file of the worst errors' images."""
    features: bytes | None
    """The PNG file of learnt features."""
    notes: list[str]
    """What is missing, and why."""


def read_run(found: Found, label: str) -> Run:
    """Read what the folder of a run holds.

    Raises:
        InputError: a file cannot be read, is damaged, or is not what kl fit writes; or there is nothing of a run.
    """
    folder = found.folder
    curves, record, options = read_curves(folder), read_record(folder / RESULTS), read_options(folder / OPTIONS)
    if record is None and options is None and "train/mse" not in curves and "rkhs/norm" not in curves:
        raise InputError(f"the folder {str(folder)!r} holds no numbers of kl fit: give the folder of one of its runs")
    known = record or {}
    results, finished = known.get("results"), None if record is None else bool(known.get("finished", known["results"]))
    rows = known.get("rows") or ("validation" if (options or {}).get("validation", "0.0") != "0.0" else "test")
    if results is None:
        epochs = last_epoch(curves)
        results = {**last_values(curves, rows, epochs), "epochs": epochs, **kernel_of(options)}
    images = read_png(folder / "figures" / "val_worst_errors.png") if known.get("worst_errors") else None
    return Run(
        folder=folder,
        label=label,
        curves=curves,
        options=options,
        origin={name: known.get(name) for name in ("command", "commit", "date", "machine")},
        finished=finished,
        results=results,
        rows=rows,
        recorded="spectrum" in known,
        spectrum=known.get("spectrum"),
        confusion=known.get("confusion"),
        worst_errors=known.get("worst_errors"),
        worst_images=images,
        features=read_png(folder / "figures" / "features.png"),
        notes=list(missing(curves, options, results, finished)),
    )


def missing(curves: Curves, options: dict[str, str] | None, results: Checked, finished: bool | None) -> Iterator[str]:
    """What a run has not left in its folder, and why."""
    if finished is None:
        yield (
            "there is no results.json, which kl fit writes from its first step on: final numbers are those of the last "
            "epoch in the event files, and command, commit, machine, spectrum, confusion and worst errors are unknown"
        )
    elif not finished:
        trained = counted(int(results.get("epochs") or 0), "epoch")
        yield (
            f"the run has not finished: after {trained} it was interrupted, failed or still trains. Final numbers "
            "are those of its last epoch; confusion and worst errors are found at the end"
        )
    if not curves:
        yield "there is no epoch in an event file, so there are no curves"
    if options is None:
        yield "there is no config.yaml, so its options are unknown"
    if results.get("exact_rkhs_norm") is None:
        left_out = "it was left out (--no-exact)" if (options or {}).get("no_exact") == "true" else "none is on record"
        yield f"there is no exact limit: {results.get('exact_skipped') or left_out}"


def last_epoch(curves: Curves) -> int:
    """The last epoch of which all is known: val/* comes before train/*, and an interrupt may come between them."""
    trained = next((curves[tag] for tag in ("train/mse", "train/mse_running") if tag in curves), None)
    return trained[-1][0] if trained else max((points[-1][0] for points in curves.values()), default=0)


def last_values(curves: Curves, rows: str, epochs: int) -> dict[str, float]:
    """The values after so many epochs by the names of `kl fit --json`; `rows` are those of val/*."""
    part = "val" if rows == "validation" else "test"
    tags = {
        **{f"train_{name}": f"train/{name}" for name in ("mse", "error", "mse_running", "error_running")},
        **{f"{part}_{name}": f"val/{name}" for name in ("mse", "error", "error_noisy")},
        **{f"exact_{part}_{name}": f"exact/val_{name}" for name in ("mse", "error", "error_noisy")},
        "exact_train_mse": "exact/train_mse",
        "rkhs_norm": "rkhs/norm",
        "exact_rkhs_norm": "exact/rkhs_norm",
        "distance_to_exact": "exact/distance",
    }
    known = {name: [value for epoch, value in curves.get(tag, []) if epoch <= epochs] for name, tag in tags.items()}
    return {name: values[-1] for name, values in known.items() if values}


def kernel_of(options: dict[str, str] | None) -> dict[str, str]:
    """Data, kernel and solver of a run without results, from its options."""
    return {name: options[name] for name in ("data", "kernel", "solver") if name in options} if options else {}


def read_options(path: Path) -> dict[str, str] | None:
    """The options of a config.yaml as texts; None if there is no file.

    Raises:
        InputError: the file cannot be read, or is no flat mapping.
    """
    if not path.exists():
        return None
    try:
        found = read_mapping(read_file(path, LONGEST).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: {MEND}") from error
    except NotReadable as error:
        raise InputError(f"{path} {' '.join(str(error).split())}: {MEND}") from error
    return {name: option_text(value) for name, (value, _) in found.items()}


def option_text(value: object) -> str:
    """The value of an option as a config.yaml has it; empty for one that is not given."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_record(path: Path) -> dict[str, Any] | None:
    """A results.json of kl fit; None if there is no file.

    Raises:
        InputError: the file cannot be read, is no JSON, or holds other values than kl fit writes.
    """
    if not path.exists():
        return None
    data = read_file(path, LARGEST)
    try:
        record = json.loads(data)
        _check_record(record)
    except CheckpointError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} is no JSON of kl fit ({' '.join(str(error).split())}): {MEND}") from error
    return dict(record)


def _check_record(record: Any) -> None:
    """Check the parts of a results.json, all of which but the results may be missing."""
    require_values("content", record, {"results": dict | None}, f"kl fit did not write it; {MEND}")
    texts = dict.fromkeys(("command", "commit", "date", "rows"), str | None)
    _check_known(
        "content", record, {**texts, "machine": dict | str | None, "finished": bool, "worst_errors": list[dict] | None}
    )
    if record.get("rows") not in (None, "test", "validation"):
        raise CheckpointError(f"its rows must be test or validation: {MEND}")
    results = record["results"]
    if results is not None:
        _check_known("results", results, _TYPES)
        if results.get("last") is not None:
            _check_known("last epoch", results["last"], {**dict.fromkeys(_NUMBERS, float | None), "epoch": int})
    if (spectrum := record.get("spectrum")) is not None:
        _check_spectrum(spectrum)
    if (confusion := record.get("confusion")) is not None:
        _check_confusion(confusion)
    for error in record.get("worst_errors") or []:
        value = str | list[float]
        require_values("worst error", error, {"row": int, "true": value, "predicted": value, "by": float}, MEND)


def _check_known(what: str, values: Any, types: dict[str, Any]) -> None:
    """Check the types of the values that are there."""
    require_values(what, values, {name: hint for name, hint in types.items() if name in values}, MEND)


def _check_spectrum(found: Any) -> None:
    types = {"s": int, "top_q": int, "index": list[int], "eigenvalue": list[float]}
    require_values("spectrum", found, types, MEND)
    index, values, q = found["index"], found["eigenvalue"], found["top_q"]
    if not (
        len(index) == len(values)
        and index == sorted(set(index))
        and values == sorted(values, reverse=True)
        and all(1 <= i <= found["s"] < MOST_COUNTED for i in index)
        and (q == 0 or q in index)
    ):
        raise CheckpointError(
            "its spectrum must have an ascending index from 1 to s with one for top_q, and a descending eigenvalue for "
            f"each: {MEND}"
        )


def _check_confusion(found: Any) -> None:
    require_values("confusion", found, {"names": list[str], "counts": list[list[int]]}, MEND)
    c = len(found["names"])
    if not found["counts"] or not all(
        len(each) == 3 and 0 <= each[0] < c and 0 <= each[1] < c and 0 < each[2] < MOST_COUNTED
        for each in found["counts"]
    ):
        raise CheckpointError(f"its confusion must have counts [true, predicted, count] of {c} classes: {MEND}")


def read_png(path: Path) -> bytes | None:
    """A PNG file; None if there is none, or something else.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}: {MEND}") from error
    data = read_file(path, LARGEST)
    return data if data.startswith(PNG) else None
