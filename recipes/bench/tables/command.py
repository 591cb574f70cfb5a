"""The command `kl bench tables`."""

from __future__ import annotations

from recipes.bench.tables.options import TablesOptions
from recipes.options.groups import OutputOptions, takes


@takes(TablesOptions, OutputOptions)
def tables(options: TablesOptions, output: OutputOptions) -> None:
    """Compare errors on tables with other libraries: the same rows, the same features, the same budget.

    The folder holds uci/NAME.npz (regression: x, y, fold) and tables/NAME.csv (classes: the last column, class).
    Everything that is finished is kept, so the same command goes on after an interrupt. For example:

    kl bench tables --data-dir data --scale quick
    """
    from recipes.bench.tables.runner import run_tables

    run_tables(options, as_json=output.json)
