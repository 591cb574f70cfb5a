"""What can go wrong, by who can mend it.

`InputError` is the user's to mend: its message names the argument, what was expected, what came, and the remedy. The
command line prints it on one line and exits with code 2. Every other `KLError` is a computation that could not be
completed; the command line prints it on one line and exits with code 1.
"""


class KLError(Exception):
    """Base class of every error that kl raises on purpose."""


class InputError(KLError, ValueError):
    """An argument, option or file is not what was expected."""


class DataNotFoundError(InputError):
    """A data set is neither on disk nor could it be downloaded."""


class CheckpointError(InputError):
    """A checkpoint file is missing, damaged, or not one of kl's."""


class MemoryBudgetError(KLError):
    """A computation needs more memory than its stated budget."""


class SingularKernelError(KLError):
    """The kernel matrix could not be factorised, even with jitter."""


class DivergenceError(KLError):
    """Training kept diverging after the step size was cut as often as allowed."""
