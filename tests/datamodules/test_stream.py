"""Training on more rows than memory: pieces on disk, iterable datasets, the command that writes them."""

import json
import os
import shutil
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from training import quiet_trainer

from callbacks import last_checkpoint
from datamodules import ArrayDataModule, IterableDataModule, StreamDataModule
from datamodules.pieces import find_pieces, read_ahead
from datamodules.stream import rebatched
from datamodules.synthetic import write_synthetic
from kl import GeneralKernelMachine, InputError


@pytest.fixture
def folder(tmp_path):
    """900 rows of Synthetic 1 in shards of 400."""
    write_synthetic(tmp_path / "data", kind=1, rows=900, test_rows=100, shard_rows=400)
    return tmp_path / "data"


def machine(**options):
    return GeneralKernelMachine("laplacian", 30, batch_size=64, **options)


def rows_of(loader):
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def sorted_rows(x):
    return x[np.lexsort(x.numpy().T)]


def test_files_of_others_are_not_replaced(folder):
    mine = folder / "train" / "mine.npz"
    mine.write_bytes(b"")
    with pytest.raises(InputError, match=r"must hold no files but its own in train; got .*mine.npz: give another"):
        write_synthetic(folder, kind=1, rows=300, test_rows=100)
    assert len(list(folder.glob("train/*"))) == 4
    assert not (folder / ".unfinished").exists()


def test_shards_hold_what_was_asked_for(folder):
    pieces = find_pieces(folder)
    assert [piece.rows for piece in pieces] == [400, 400, 100]
    assert [piece.path.name for piece in pieces] == ["00000.npz", "00001.npz", "00002.npz"]
    again = folder.with_name("again")
    write_synthetic(again, kind=1, rows=300, test_rows=100, shard_rows=400)
    assert len(find_pieces(again)) == 1
    write_synthetic(folder, kind=1, rows=300, test_rows=100, shard_rows=400)
    assert len(find_pieces(folder)) == 1  # those of the larger set are gone


class Killed(BaseException):
    """What no handler expects."""


def set_of(folder):
    """The rows of test.npz and of all shards; None where no stream can be read."""
    if not (folder / "train").exists():
        with pytest.raises(InputError, match=r"must hold shards train/\*\.npz"):
            find_pieces(folder)
        return None
    pieces = find_pieces(folder)
    return np.load(folder / "test.npz")["x"], np.concatenate([piece.read()[0] for piece in pieces])


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_while_a_set_is_replaced_leaves_no_mixture(folder, monkeypatch, call):
    """New test rows beside old training rows were 63% error; here the process dies at each rename in turn."""
    before = set_of(folder)
    write_synthetic(folder.with_name("new"), kind=2, rows=700, test_rows=60, shard_rows=300)
    after = set_of(folder.with_name("new"))
    calls = 0

    def dying(change):
        def changed(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        # Renames of shards and of the test set as they are written, three of the swap, and the removal of the old one.
        patch.setattr("os.replace", dying(os.replace))
        patch.setattr("os.rename", dying(os.rename))
        patch.setattr("shutil.rmtree", dying(shutil.rmtree))
        with pytest.raises(Killed):
            write_synthetic(folder, kind=2, rows=700, test_rows=60, shard_rows=300)
    # 1 to 4 write the new set, 5 to 7 swap, 8 removes the old one.
    found = set_of(folder)
    if call <= 5:
        assert same(found, before)
    elif call == 8:
        assert same(found, after)
    else:
        assert found is None
    write_synthetic(folder, kind=2, rows=700, test_rows=60, shard_rows=300)
    assert same(set_of(folder), after)
    assert sorted(path.name for path in folder.iterdir()) == ["test.npz", "train"]


def test_an_epoch_has_every_row_once(folder):
    data = StreamDataModule(folder, batch_size=64, sample_size=200)
    data.setup()
    assert data.num_rows == 900
    assert len(data.train_set.x) == 200
    assert data.class_names == ["0", "1"]
    loader = data.train_dataloader()
    assert len(loader) == 15
    sizes = [len(x) for x, _ in loader]
    assert sizes == [64] * 14 + [4]
    x, y = rows_of(loader)
    written = [piece.read() for piece in find_pieces(folder)]
    expected = torch.cat([torch.from_numpy(part) for part, _ in written])
    assert torch.equal(sorted_rows(x), sorted_rows(expected))
    labels = dict(zip(map(bytes, expected.numpy()), np.concatenate([y for _, y in written]), strict=True))
    assert [labels[bytes(row)] for row in x.numpy()] == y.argmax(dim=1).tolist()


def test_the_order_is_that_of_seed_and_epoch(folder):
    def order(seed, epoch):
        data = StreamDataModule(folder, batch_size=64, seed=seed, sample_size=200)
        data.setup()
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        return rows_of(loader)[0]

    assert torch.equal(order(0, 0), order(0, 0))
    assert not torch.equal(order(0, 0), order(0, 1))
    assert not torch.equal(order(0, 0), order(1, 0))


def stated_order(sizes, seed, epoch):
    """The rows of an epoch by what is documented: pieces in a random order, and the rows within each."""
    state = np.random.SeedSequence([seed, zlib.crc32(b"shuffle"), epoch]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    starts = np.cumsum([0, *sizes])
    pieces = torch.randperm(len(sizes), generator=generator).tolist()
    return [int(starts[i]) + row for i in pieces for row in torch.randperm(sizes[i], generator=generator).tolist()]


@pytest.mark.parametrize("seed", [0, 3])
def test_pieces_and_the_rows_within_them_are_shuffled_as_stated(tmp_path, seed):
    sizes = [5, 9, 7, 4]
    rows = np.arange(sum(sizes), dtype=np.float32)
    (tmp_path / "train").mkdir()
    for i, part in enumerate(np.split(rows, np.cumsum(sizes)[:-1])):
        np.savez(tmp_path / "train" / f"{i}.npz", x=part[:, None], y=part)
    data = StreamDataModule(tmp_path, batch_size=6, seed=seed)
    data.setup()
    firsts = set()
    for epoch in range(12):
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        x, y = rows_of(loader)
        assert torch.equal(x, y)
        found = x[:, 0].int().tolist()
        assert found == stated_order(sizes, seed, epoch)
        # Whatever the generator: the rows of a piece follow each other, and no piece is always first.
        pieces = np.searchsorted(np.cumsum(sizes), found, side="right")
        assert 1 + int(np.count_nonzero(np.diff(pieces))) == len(sizes)
        firsts.add(int(pieces[0]))
    assert len(firsts) > 1


def test_memory_mapped_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.pieces.PIECE_BYTES", 4 * 5 * 30)  # 30 rows
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((100, 5), dtype=np.float32), generator.standard_normal((100, 2))
    for name, array in (("x_train", x), ("y_train", y), ("x_test", x[:20]), ("y_test", y[:20])):
        np.save(tmp_path / f"{name}.npy", array)
    assert [piece.rows for piece in find_pieces(tmp_path)] == [30, 30, 30, 10]
    data = StreamDataModule(tmp_path, batch_size=16, sample_size=50)
    data.setup()
    assert data.task == "regression"
    assert torch.equal(sorted_rows(rows_of(data.train_dataloader())[0]), sorted_rows(torch.from_numpy(x)))
    trained = machine()
    quiet_trainer(2).fit(trained, datamodule=data)
    assert "train/error" not in trained.train_metrics


def test_training_is_that_on_the_same_rows_in_memory(folder):
    stream = StreamDataModule(folder, sample_size=900)
    trained = machine(decay=0, seed=1)
    quiet_trainer(6).fit(trained, datamodule=stream)
    pieces = [piece.read() for piece in find_pieces(folder)]
    x, y = (np.concatenate(part) for part in zip(*pieces, strict=True))
    test = np.load(folder / "test.npz")
    inside = ArrayDataModule.from_arrays(x, y.astype(int), test["x"], test["y"].astype(int))
    other = GeneralKernelMachine(trained.kernel, trained.centers.clone(), batch_size=64, decay=0, running_metrics=True)
    quiet_trainer(6).fit(other, datamodule=inside)
    assert trained.eval_metrics["val/error"] == pytest.approx(other.eval_metrics["val/error"], abs=0.02)
    name = "train/mse_running"
    assert trained.train_metrics[name] == pytest.approx(other.train_metrics[name], rel=0.1)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_run_is_the_same(folder, tmp_path):
    def trained(epochs, name, ckpt=None):
        saver = last_checkpoint(tmp_path / name)
        made, trainer = machine(decay=0), quiet_trainer(epochs, callbacks=[saver], enable_checkpointing=True)
        data = StreamDataModule(folder, sample_size=300)
        trainer.fit(made, datamodule=data, ckpt_path=ckpt, weights_only=True if ckpt else None)
        return made.alpha

    whole = trained(5, "whole")
    trained(2, "first")
    second = trained(4, "second", tmp_path / "first" / "last.ckpt")
    assert torch.equal(trained(5, "third", tmp_path / "second" / "last.ckpt"), whole)
    assert not torch.equal(second, whole)


# Faults


def test_a_corrupt_shard_is_named_and_the_checkpoint_stays_good(kl, tmp_path):
    write_synthetic(tmp_path / "data", kind=1, rows=900, test_rows=100, shard_rows=100)
    options = ("fit", "--data", "stream:data", "--solver", "eigenpro4", "--centers", 30, "--batch-size", 64)
    assert kl(*options, "--epochs", 2, "--name", "run").code == 0
    shard = sorted(Path("data/train").glob("*.npz"))[5]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:9000] + b"\0" * 2000 + whole[11000:])
    result = kl(*options, "--epochs", 4, "--name", "run", "--resume", "last")
    assert result.code == 2
    assert f"{shard} is damaged" in result.err
    assert "Traceback" not in result.err
    shard.write_bytes(whole)
    result = kl(*options, "--epochs", 4, "--name", "run", "--resume", "last", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["epochs"] == 4


def test_a_shard_that_has_become_shorter(folder):
    data = StreamDataModule(folder, batch_size=64, sample_size=200)
    data.setup()
    path = folder / "train" / "00001.npz"
    np.savez(path, x=np.zeros((10, 50), np.float32), y=np.zeros(10, np.uint8))
    with pytest.raises(InputError, match=r"00001.npz must hold 400 rows of x and y, as when the run began; got 10"):
        list(data.train_dataloader())


def test_a_class_that_nobody_knew(folder):
    data = StreamDataModule(folder, batch_size=64, sample_size=200)
    data.setup()
    path = folder / "train" / "00002.npz"
    np.savez(path, x=np.zeros((100, 50), np.float32), y=np.full(100, 7))
    with pytest.raises(InputError, match=r"00002.npz holds the class 7, which neither the test set nor the sample"):
        list(data.train_dataloader())


def damage(name):
    def damaged(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:200])

    return damaged


def shard(number, **arrays):
    def written(folder):
        given = {"x": np.zeros((400, 50), np.float32), "y": np.zeros(400, np.uint8), **arrays}
        np.savez(folder / "train" / f"{number:05d}.npz", **given)

    return written


def squeeze(folder):
    """A compressed shard with damage in the middle."""
    path = folder / "train" / "00001.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((400, 50), np.float32), y=np.zeros(400, np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:9000] + b"\xff" * 2000 + whole[11000:])


def all_empty(folder):
    for number in range(3):
        shard(number, x=np.zeros((0, 50), np.float32), y=np.zeros(0, np.uint8))(folder)


def write_empty(folder):
    for path in folder.glob("train/*"):
        path.unlink()


def without_x(folder):
    np.savez(folder / "train" / "00000.npz", z=np.zeros(3))


def other_width(folder):
    np.savez(folder / "train" / "00001.npz", x=np.zeros((400, 3), np.float32), y=np.zeros(400, np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("train/00001.npz"), "00001.npz is not a .npz file or is damaged"),
        (damage("test.npz"), "test.npz is not a .npz file or is damaged"),
        (write_empty, "must hold shards train/.* it holds neither"),
        (without_x, "00000.npz must hold x and y; x not found"),
        (squeeze, "00001.npz is damaged"),
        (all_empty, "must have at least one row; all 3 are empty"),
        (shard(1, x=np.float32(3)), "x in .*00001.npz must have a row per sample; it is a single number"),
        (shard(1, y=np.zeros(399, np.uint8)), "00001.npz must have one row per sample; x has 400 and y 399"),
        (shard(1, x=np.zeros((400, 50), np.uint8)), r"[012].npz must hold .* samples .*, as the other pieces do; got"),
        (shard(1, x=np.zeros((400, 9), np.float32)), r"[012].npz must hold float samples of shape \(.*; got float"),
        (
            shard(1, y=np.zeros(400, np.float32)),
            r"[012].npz must hold .* as the other pieces do",
        ),
        (
            shard(1, y=np.zeros((400, 2), np.uint8)),
            r"[012].npz must hold .* integer y of shape .*as the other pieces do",
        ),
        (shard(1, x=np.full((400, 50), np.nan, np.float32)), "x in .*00001.npz must be finite; row 0 holds NaN"),
        (
            lambda folder: (folder / "test.npz").rename(folder / "x_test.npy"),
            "must hold both x_test.npy and y_test.npy, or neither; got x_test.npy",
        ),
    ],
)
def test_folders_that_cannot_be_used(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        StreamDataModule(folder, sample_size=900).setup()


def test_a_piece_of_other_features(folder):
    data = StreamDataModule(folder, batch_size=64, sample_size=200)
    data.setup()
    other_width(folder)
    with pytest.raises(InputError, match=r"00001.npz must hold float samples of shape \(50,\) .*; got .* \(3,\) with"):
        list(data.train_dataloader())


def test_damaged_arrays(tmp_path):
    for name in ("x_train", "y_train"):
        np.save(tmp_path / f"{name}.npy", np.zeros((10, 3)))
    (tmp_path / "x_train.npy").write_bytes((tmp_path / "x_train.npy").read_bytes()[:140])
    with pytest.raises(InputError, match=r"x_train.npy is no .npy array or is damaged"):
        find_pieces(tmp_path)
    np.save(tmp_path / "x_train.npy", np.zeros((11, 3)))
    with pytest.raises(InputError, match=r"y_train.npy must have one row per sample; got 11 and 10"):
        find_pieces(tmp_path)
    with pytest.raises(InputError, match="must be a folder; there is none"):
        find_pieces(tmp_path / "nowhere")


def test_spans_without_a_row(tmp_path):
    for name in ("x_train", "y_train"):
        np.save(tmp_path / f"{name}.npy", np.zeros((0, 3)))
    with pytest.raises(InputError, match=r"x_train.npy must have at least one row; got none"):
        find_pieces(tmp_path)


def test_a_test_set_of_other_features(folder):
    np.savez(folder / "test.npz", x=np.zeros((5, 3), np.float32), y=np.zeros(5, np.uint8))
    with pytest.raises(InputError, match=r"x of the test set in .* must have 50 features, as the training rows; got 3"):
        StreamDataModule(folder, sample_size=200).setup()


@pytest.mark.parametrize("options", [{"train_size": 5}, {"label_noise": 0.1}])
def test_what_a_stream_cannot_have(folder, options):
    with pytest.raises(InputError, match=f"{next(iter(options))} needs the training set in memory"):
        StreamDataModule(folder, **options)


@pytest.mark.parametrize("solver", ["eigenpro", "pcg"])
def test_machines_that_need_all_rows_refuse(kl, folder, monkeypatch, solver):
    monkeypatch.chdir(folder.parent)
    result = kl("fit", "--data", "stream:data", "--solver", solver)
    assert result.code == 2
    assert "are a stream: use GeneralKernelMachine (--solver eigenpro4)" in result.err


def test_the_sample_has_enough_rows_for_the_centres(kl, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("datamodules.stream.SAMPLE_SIZE", 100)
    options = ("fit", "--data", "stream:data", "--solver", "eigenpro4", "--epochs", 1, "--no-exact", "--json")
    for centers in (50, 300):
        assert json.loads(kl(*options, "--centers", centers).out)["centers"] == centers


def test_the_exact_limit_of_a_stream_is_left_out(kl, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    result = kl("fit", "--data", "stream:data", "--solver", "eigenpro4", "--centers", 30, "--epochs", 2, "--json")
    found = json.loads(result.out)
    assert found["n"] == 900
    assert "the training rows are a stream" in found["exact_skipped"]
    assert kl("plan", "--data", "stream:data", "--solver", "eigenpro4", "--centers", 30).code == 0


# Reading ahead


def test_reading_ahead_keeps_order_and_errors():
    def items():
        yield from range(5)
        raise InputError("the end came early")

    seen = []
    with pytest.raises(InputError, match="the end came early"):
        seen += [seen.append(item) for item in read_ahead(items())]
    assert seen == [0, 1, 2, 3, 4]
    assert list(read_ahead(range(3))) == [0, 1, 2]


def test_reading_ahead_stops_when_nobody_reads():
    before = threading.active_count()
    reader = read_ahead(iter(range(1000)))
    assert next(reader) == 0
    reader.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("sizes", [[7], [3, 4, 5], [1] * 9, [20, 1], []])
def test_batches_are_cut_from_any_parts(sizes):
    x = torch.arange(float(sum(sizes)))[:, None]
    parts = list(zip(x.split(sizes), x.split(sizes), strict=True))
    batches = list(rebatched(parts, 4))
    assert [len(a) for a, _ in batches] == [4] * (len(x) // 4) + [len(x) % 4] * bool(len(x) % 4)
    assert torch.equal(torch.cat([a for a, _ in batches] or [x]), x)


class Endless(torch.utils.data.IterableDataset):
    """Batches of a line, without an end."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            x = torch.rand(37, 3, generator=generator)
            yield x, x.sum(dim=1, keepdim=True)


def test_any_iterable_dataset():
    sample = next(iter(Endless()))
    data = IterableDataModule(Endless(), sample, sample)
    trained = machine(decay=0)
    trainer = quiet_trainer(3, limit_train_batches=20)
    trainer.fit(trained, datamodule=data)
    assert trainer.global_step == 60
    assert data.num_rows is None
    assert trained.eval_metrics["val/mse"] < 0.1 * float(sample[1].var())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((torch.zeros(4, 2), torch.zeros(4, 1)), r"yield x of 3 and y of 1 columns, .* got \(4, 2\) and \(4, 1\)"),
        ((torch.zeros(4, 3), torch.zeros(3, 1)), r"yield x of 3 and y of 1 columns, .* got \(4, 3\) and \(3, 1\)"),
        ((torch.zeros(4, 3), torch.zeros(4)), "y of the dataset must be a float tensor of shape"),
        ((torch.zeros(4, 3, dtype=torch.uint8), torch.zeros(4, 1)), "x of the dataset must be a float tensor"),
        ((torch.full((4, 3), torch.nan), torch.zeros(4, 1)), "x of the dataset must be finite"),
    ],
)
def test_parts_of_a_dataset_that_cannot_be_used(part, message):
    sample = next(iter(Endless()))
    data = IterableDataModule([sample, part], sample, sample)
    data.setup()
    with pytest.raises(InputError, match=message):
        list(data.train_dataloader())


# The command


def test_writing(kl):
    result = kl("data", "synthetic", "--rows", 500, "--shard-rows", 200, "--test-rows", 50, "--output", "x", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["shards"] == 3
    assert (
        "500 training rows in 3 shards"
        in kl(*["data", "synthetic", "--rows", "500", "--shard-rows", "200", "--output", "y"]).out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", 0, "--output", "x"], "rows must be a whole number of at least 1"),
        (["--kind", 3, "--output", "x"], "kind must be 1 or 2"),
        (["--output", "file/x"], "output file/x cannot be written"),
    ],
)
def test_mistakes(kl, arguments, message):
    Path("file").write_text("")
    result = kl("data", "synthetic", *arguments)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
