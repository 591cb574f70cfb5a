"""What `kl report` reads: curves as TensorBoard reads them, and refusals that name the file and change nothing."""

import json
import os
from pathlib import Path

import pytest
import yaml

from kl import InputError
from recipes.report.events import read_curves, read_scalars
from recipes.report.folders import find_run, labels_of
from recipes.report.reading import last_epoch, last_values, read_record
from recipes.report.tables import default_options


def events_of(folder):
    return max(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_size)


def refused(kl, *arguments):
    """The message of a refusal, on one line; no page is written."""
    done = kl("report", *arguments)
    assert done.code == 2, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert not list(Path().rglob("report.html"))
    return done.err


def test_curves_are_those_of_tensorboard(run_of):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_of("plain")
    theirs = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    theirs.Reload()
    ours = read_curves(folder)
    assert {"train/mse", "val/error", "rkhs/norm", "exact/distance", "exact/rkhs_norm"} <= set(ours)
    for tag in ours:
        if not tag.startswith(("hp/", "final/")):
            assert [value for _, value in ours[tag]] == [each.value for each in theirs.Scalars(tag)]
            assert [epoch for epoch, _ in ours[tag]] == [1, 2, 3]


def test_a_resumed_run_has_one_value_for_each_epoch(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for part, epochs, value in (("a", (0, 1, 2), 1.0), ("b", (2, 3), 2.0)):
        with SummaryWriter(str(tmp_path), filename_suffix=part) as writer:
            for epoch in epochs:
                writer.add_scalar("epoch", epoch, 10 * epoch + 9)
                writer.add_scalar("train/mse", value, 10 * epoch + 9)
            writer.add_scalar("train/mse", float("nan"), 99)
    assert read_curves(tmp_path) == {"train/mse": [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]}


def test_a_file_that_was_cut_short_is_read_up_to_there(copied):
    path = events_of(copied())
    whole = read_scalars(path)["train/mse"]
    data = path.read_bytes()
    for length in (0, 5, 11, 30, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        found = read_scalars(path).get("train/mse", [])
        assert found == whole[: len(found)]


def test_a_damaged_event_file(kl, copied):
    path = events_of(copied())
    data = path.read_bytes()
    for place in (3, 30):  # in a length, in a content
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert f"the event file {path} is damaged" in refused(kl, path.parent)
    path.write_bytes(b"no record at all" * 10)
    assert "move it out of the folder" in refused(kl, path.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: [], "its content must be a dict"),
        (lambda record: {"a": 1}, "its content has no results: kl fit did not write it"),
        (lambda record: record | {"results": 3}, "results of type"),
        (lambda record: record | {"rows": "others"}, "its rows must be test or validation"),
        (lambda record: record | {"machine": [1]}, "machine of type"),
        (lambda record: record | {"results": record["results"] | {"test_mse": "0.1"}}, "test_mse of type"),
        (
            lambda record: record | {"results": record["results"] | {"last": {"epoch": 1, "train_mse": []}}},
            "last epoch",
        ),
        (lambda record: record | {"results": record["results"] | {"seconds_per_epoch": [None]}}, "seconds_per_epoch"),
        (lambda record: record | {"spectrum": {"s": 2, "top_q": 1, "index": [2], "eigenvalue": [1.0]}}, "its spectrum"),
        (lambda record: record | {"confusion": {"names": ["a"], "counts": [[0, 1, 5]]}}, "of 1 classes"),
        (lambda record: record | {"confusion": {"names": [], "counts": []}}, "of 0 classes"),
        (lambda record: record | {"worst_errors": [{"row": 1}]}, "its worst error has no true"),
    ],
)
def test_results_of_other_values(run_of, tmp_path, change, said):
    record = json.loads((run_of("plain") / "results.json").read_text())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(record)))
    with pytest.raises(InputError, match=str(path)) as error:
        read_record(path)
    assert said in str(error.value)
    assert "remove the file" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"results": {"n": 1' + "0" * 5000 + "}}", "\udcff"])
def test_results_that_are_no_json(kl, copied, text):
    path = copied() / "results.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert f"{path} is no JSON of kl fit" in refused(kl, path.parent)


@pytest.mark.parametrize("text", ["a: 'x\n", "- 3\n", "a: &b 1\n", "a: !!python/object:os.system x\n", "\udcff"])
def test_options_that_are_no_mapping(kl, copied, text):
    path = copied() / "config.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    message = refused(kl, path.parent)
    assert str(path) in message
    assert "remove the file, or give another run" in message


@pytest.mark.parametrize("name", ["results.json", "config.yaml", "events.out.tfevents.2"])
def test_what_is_no_file(kl, copied, name):
    """A pipe, which would never end, and a folder."""
    path = copied() / name
    path.unlink(missing_ok=True)
    for make, undo in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
        make(path)
        assert f"{path} is no regular file: remove the file" in refused(kl, path.parent)
        undo(path)


def test_numbers_of_a_run_on_its_way_are_of_one_epoch():
    """An interrupt may come after val/* of an epoch and before its train/*."""
    curves = {"train/mse": [(1, 0.4), (2, 0.3)], "val/mse": [(1, 0.6), (2, 0.5), (3, 0.7)], "hp/x": [(4, 1.0)]}
    assert last_epoch(curves) == 2
    assert last_values(curves, "test", 2) == {"train_mse": 0.3, "test_mse": 0.5}
    assert last_epoch({"rkhs/norm": [(1, 1.0), (3, 2.0)]}) == 3
    assert last_epoch({}) == 0


def test_what_is_no_run(kl, copied):
    folder = copied()
    copied(as_name="other")
    Path("empty").mkdir()
    Path("fake").mkdir()
    Path("fake/results.json").write_text("{}")
    Path("bare/version_0").mkdir(parents=True)
    Path("file.txt").write_text("")
    Path("last.ckpt").write_text("")
    assert "there is no run 'missing'" in refused(kl, "missing")
    assert "the folder 'empty' holds no run: give a folder that kl fit has made" in refused(kl, "empty")
    assert "the folder 'bare' holds no run" in refused(kl, "bare")
    assert "'.' holds no run: name one of its folders: other, plain" in refused(kl, ".")
    assert "fake/results.json: its content has no results" in refused(kl, "fake")
    assert "'file.txt' is neither the folder of a run nor a checkpoint" in refused(kl, "file.txt")
    assert "'last.ckpt' is neither" in refused(kl, "last.ckpt")
    assert "output's folder 'no' does not exist" in refused(kl, folder, "--output", "no/page.html")
    assert "output must be the path of a file" in refused(kl, folder, "--output", "empty")
    for name in ("last.ckpt", "-"):
        assert f"name ends in .html; got '{name}'" in refused(kl, folder, "--output", name)
    assert not Path("-").exists()
    assert Path("last.ckpt").read_text() == ""
    assert kl("report").code == 2
    for k in range(10):
        Path(f"many/version_{k}").mkdir(parents=True)
        Path(f"many/version_{k}/config.yaml").write_text("epochs: 1\n")
    assert "runs must be at most 9" in refused(kl, *Path("many").iterdir())


def test_a_folder_without_numbers(kl):
    Path("tables/version_0").mkdir(parents=True)
    Path("tables/version_0/events.out.tfevents.1").write_bytes(b"")
    assert "holds no numbers of kl fit" in refused(kl, "tables")


def test_versions_are_counted_as_numbers(tmp_path):
    for name in ("version_9", "version_10", "version_11", "version_x"):
        (tmp_path / name).mkdir()
    for name in ("version_9", "version_10", "version_x"):
        (tmp_path / name / "config.yaml").touch()
    assert find_run(tmp_path).folder == tmp_path / "version_10"


def test_labels_tell_runs_apart():
    assert labels_of([Path("/a/x/version_0"), Path("/a/y/version_0")]) == ["x/version_0", "y/version_0"]
    assert labels_of([Path("/a/x/version_0"), Path("/b/x/version_0")]) == ["a/x/version_0", "b/x/version_0"]
    assert labels_of([Path("/version_0")]) == ["version_0"]


def test_the_defaults_are_those_of_kl_fit(kl):
    printed = yaml.safe_load(kl("fit", "--print-config").out)
    assert set(default_options()) == set(printed) - {"resume", "json"}
    assert {str(value).lower() for value in printed.values() if value is not None} >= set(
        filter(None, default_options().values())
    )
