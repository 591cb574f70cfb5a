"""Faults in the packages' names, and in what `kl --version` says."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "another package is taken for kl's",
        "kl/system/packages.py",
        'if found[0] not in (own, own / "__init__.py"):',
        "if False:",
        "tests/kl/system/test_packages.py -k 'refused or one_line'",
    ),
    Mutant(
        "overwritten files are taken for kl's",
        "kl/system/packages.py",
        '!= "kl.system.lazy":',
        '== "":',
        "tests/kl/system/test_packages.py -k overwritten",
    ),
    Mutant(
        "the command does not look at recipes",
        "kl/__main__.py",
        'require_own("recipes")',
        "pass",
        "tests/kl/system/test_packages.py -k one_line",
    ),
    Mutant(
        "the command does not look at callbacks",
        "recipes/cli.py",
        '("datamodules", "callbacks")',
        '("datamodules",)',
        "tests/kl/system/test_packages.py -k one_line",
    ),
    Mutant(
        "an alias imports modules of its own",
        "kl/system/lazy.py",
        ' and "__path__" in vars(sys.modules[package])',
        "",
        "tests/kl/system/test_packages.py -k twice",
    ),
    Mutant(
        "missing units are seen",
        "recipes/output/about.py",
        "is wanted]",
        "is not wanted]",
        "tests/recipes/output/test_about.py -k flags",
    ),
]
