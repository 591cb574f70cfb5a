"""Faults of the command line: its options, its runs and their folders, memory, signals and closed outputs."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "numbers with leading zeros are read",
        "recipes/yaml_mapping.py",
        '("leading zeros", _LEADING_ZERO.fullmatch(text)),',
        "",
        "tests/test_config.py",
    ),
    Mutant(
        "a sexagesimal number is a text",
        "recipes/yaml_mapping.py",
        '("colons", _SEXAGESIMAL.fullmatch(text)),',
        "",
        "tests/test_config.py",
    ),
    Mutant(
        "the last of two equal keys stands",
        "recipes/yaml_mapping.py",
        "if key in found:",
        "if not key:",
        "tests/test_config.py",
    ),
    Mutant(
        "a text like a number is written without quotes",
        "recipes/yaml_mapping.py",
        'style=None if same else "\'")',
        "style=None)",
        "tests/test_config.py",
    ),
    Mutant(
        "options without effect are kept in config.yaml",
        "callbacks/keep_options.py",
        "{**self.options, **{name: str(chosen[name]) for name in asked}}",
        "dict(self.options)",
        "tests/test_cli_fit.py -k options_that_it_runs_with",
    ),
    Mutant(
        "relative paths in JSON",
        "recipes/report.py",
        "str(Path(results[name]).absolute())",
        "str(results[name])",
        "tests/test_cli_fit.py -k agreed_fields",
    ),
    Mutant(
        "resume last goes by name",
        "recipes/training.py",
        "key=lambda path: path.stat().st_mtime",
        "key=lambda path: path.parent.parent.name",
        "tests/test_cli_fit.py -k newest_by_time",
    ),
    Mutant(
        "a resumed run mixes precisions",
        "kl/trained.py",
        "if precision != self.precision:",
        "if precision is None:",
        "tests/test_cli_fit.py -k resume_errors",
    ),
    Mutant(
        "seconds_total without the exact solve",
        "recipes/plan.py",
        "estimate.training_seconds(epochs) + exact_seconds,",
        "estimate.training_seconds(epochs),",
        "tests/test_plan_command.py -k total",
    ),
    Mutant(
        "NaN in the largest over ranks is heard of rank 0 alone",
        "kl/ranks.py",
        "max(self.each(value), key=lambda one: (one != one, one))",
        "max(self.each(value))",
        "tests/test_ranks.py -k collectives",
    ),
    Mutant(
        "auto ignores a limit of addresses",
        "kl/memory.py",
        '((resource.RLIMIT_AS, "VmSize"), ',
        "(",
        "tests/test_budget.py -k limits",
    ),
    Mutant(
        "auto ignores what is used within the limits of the process",
        "kl/memory.py",
        "max(0, most - int(used[1]) * 1024)",
        "most",
        "tests/test_budget.py -k limits",
    ),
]
