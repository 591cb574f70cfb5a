"""`kl data`: the data sets, where they lie, and whether their files are intact."""

from __future__ import annotations

from typing import Annotated

import typer

from recipes.options.groups import DATA_HELP

app = typer.Typer(help="List, download and check data sets.", no_args_is_help=True)

DataDir = Annotated[
    str | None, typer.Option(help="Folder of downloaded sets; default: $KL_DATA_DIR, else data/.", metavar="DIR")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command("list")
def list_sets(data_dir: DataDir = None, json: Json = False) -> None:
    """The named data sets and where each was found."""
    from datamodules.catalog import data_sets
    from recipes.output.report import print_json, print_table

    sets = data_sets(data_dir)
    if json:
        print_json({"data_sets": [{**vars(item), "present": item.present} for item in sets]})
        return
    rows = [
        (
            item.name,
            str(item.n_train),
            str(item.n_test),
            str(item.num_features),
            str(item.num_classes),
            item.found_in or "not here",
        )
        for item in sets
    ]
    print_table("data sets", ("name", "train", "test", "d", "classes", "found in"), rows)
    for item in sets:
        if not item.present:
            typer.echo(f"To fetch it: kl data download {item.name}")
    typer.echo("Your own data: --data npz:FILE, --data csv:FILE, --data folder:DIR, --data package.module:Class")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or another of `kl data list`.")],
    data_dir: DataDir = None,
) -> None:
    """Download a data set, unless it is there."""
    from datamodules.catalog import download as fetch

    typer.echo(f"{name}: {fetch(name, data_dir)}")


@app.command()
def synthetic(
    output: Annotated[str, typer.Option(help="Folder to write, for --data stream:DIR.", metavar="DIR")],
    rows: Annotated[int, typer.Option(help="Training rows.")] = 200_000,
    test_rows: Annotated[int, typer.Option(help="Test rows.")] = 10_000,
    kind: Annotated[int, typer.Option(help="1: separable; 2: Bayes error 15.9%.", metavar="1|2")] = 1,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the rows.")] = 0,
    json: Json = False,
) -> None:
    """Write Synthetic 1 or 2 to disk in shards, as large as wanted, for runs on more data than memory.

    For example: kl data synthetic --rows 2000000 --output big, then kl fit --data stream:big --solver eigenpro4
    """
    from datamodules.synthetic import write_synthetic
    from kl.system.wording import counted
    from recipes.output.report import print_json

    shards = write_synthetic(output, kind, rows, test_rows, shard_rows, seed)
    if json:
        print_json({"output": output, "kind": kind, "rows": rows, "test_rows": test_rows, "shards": shards})
    else:
        of = f"{counted(rows, 'training row')} in {counted(shards, 'shard')} and {counted(test_rows, 'test row')}"
        typer.echo(f"{of} written to {output}")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help=DATA_HELP, metavar="NAME")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Read a data set and compare it with what is known of the original; exit code 1 where it differs."""
    from datamodules.catalog import check as look
    from recipes.output.report import print_json, print_table

    checks = look(data, data_dir)
    good = all(item.ok for item in checks)
    if json:
        print_json({"data": data, "ok": good, "checks": [{**vars(item), "ok": item.ok} for item in checks]})
    else:
        rows = [(item.what, item.found, item.expected, "ok" if item.ok else "DIFFERS") for item in checks]
        print_table(data, ("", "found", "expected", ""), rows)
    if not good:
        raise typer.Exit(1)
