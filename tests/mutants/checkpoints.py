"""Faults of checkpoints, and of the code of users that they or a command line name."""

from mutants import Mutant

SECURITY = "tests/test_security.py"

MUTANTS = [
    Mutant(
        "a checkpoint says what class is made",
        "kl/loading.py",
        "if kind not in KINDS:",
        "import kl\n        KINDS.setdefault(kind, getattr(kl, kind, None))\n        if KINDS[kind] is None:",
        f"{SECURITY} -k kind_in_the_table",
    ),
    Mutant(
        "a configuration imports what it names",
        "kl/kernels/configured.py",
        'cls = _own_class(name, own) if ":" in name else named_class(name)',
        "from kl.kernels.registry import kernel_class\n    cls = kernel_class(name)",
        f"{SECURITY} -k names_no_kernel_but_kls",
    ),
    Mutant(
        "nested kernels are imported",
        "kl/kernels/configured.py",
        "return kernel_from_config(value, own, depth + 1)",
        'from kl.kernels.registry import kernel_class\n        own = [*own, kernel_class(value["kernel"])]\n'
        "        return kernel_from_config(value, own, depth + 1)",
        f"{SECURITY} -k names_no_kernel_but_kls",
    ),
    Mutant(
        "a configuration without end is read to its end",
        "kl/kernels/configured.py",
        "if depth > DEEPEST:",
        "if depth > 10**6:",
        "tests/test_kernel_registry.py -k without_end",
    ),
    Mutant(
        "hyper-parameters of any name",
        "kl/checkpoints.py",
        "if unknown and not more:",
        "if False:",
        f"{SECURITY} -k right_types",
    ),
    Mutant(
        "hyper-parameters of any type",
        "kl/checkpoints.py",
        "if not _fits(values[name], hint):",
        "if False:",
        f"{SECURITY} -k right_types",
    ),
    Mutant(
        "a data module's options of any name",
        "datamodules/stored.py",
        "if unknown := sorted(map(str, set(stored) - known)):",
        "if unknown := []:",
        f"{SECURITY} -k asked_for",
    ),
    Mutant(
        "checkpoints are unpickled",
        "kl/saved.py",
        "weights_only=True",
        "weights_only=False",
        f"{SECURITY} -k pickled_code",
    ),
    Mutant(
        "weights_only=False is not refused",
        "kl/checkpoints.py",
        "if value is False:",
        "if value == 0 and value is not False:",
        f"{SECURITY} -k pickled_code",
    ),
    Mutant(
        "an options file says what code runs",
        "recipes/config.py",
        'source.name == "DEFAULT_MAP" and names_code',
        'source.name == "DEFAULT" and names_code',
        f"{SECURITY} -k options_file",
    ),
    Mutant(
        "kernel= is ignored by a load",
        "kl/trained.py",
        'found = stored_kernel(hyper_parameters["kernel"], kernel)',
        'found = stored_kernel(hyper_parameters["kernel"])',
        f"{SECURITY} -k not_ignored",
    ),
    Mutant(
        "a kernel of other parameters is taken for the checkpoint's",
        "kl/state.py",
        "(resuming or not comes_from(theirs, ours))",
        "resuming",
        f"{SECURITY} -k not_ignored",
    ),
    Mutant(
        "the current folder comes first on the path",
        "kl/user_modules.py",
        "sys.path.append(here)",
        "sys.path.insert(0, here)",
        "tests/test_user_modules.py",
    ),
    Mutant(
        "a user's module hides one of Python's",
        "kl/user_modules.py",
        "if there is not None or name in sys.stdlib_module_names:",
        "if False:",
        "tests/test_user_modules.py -k mixed_up",
    ),
    Mutant(
        "half a module stays",
        "kl/user_modules.py",
        "del sys.modules[name]",
        "pass",
        "tests/test_user_modules.py -k half_made",
    ),
]
