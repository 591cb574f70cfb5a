"""What can go wrong, by who can mend it.

The user can mend an `InputError`: the message names the argument, what was expected, what came, and the remedy. The
command line prints the message on one line and exits with code 2. Every other `KLError` is a computation that could
not be completed; the command line prints the message on one line and exits with code 1.
"""


class KLError(Exception):
    """Base class of every error that kl raises on purpose.

    kl raises the base class itself where no subclass fits, for example when a gradient is not finite. Catch `KLError`
    to handle everything that kl refuses or cannot complete; any other exception is a fault in kl.

    Example:
        >>> import kl
        >>> try:
        ...     kl.Gaussian(bandwidth=-1.0)
        ... except kl.KLError as error:
        ...     print(error)
        bandwidth must be a finite number above 0 or "auto"; got -1.0
    """


class InputError(KLError, ValueError):
    """An argument, option or file is not what was expected.

    The caller can mend the error: the message names the argument, what was expected, what came, and the remedy.

    Example:
        >>> import torch, kl
        >>> kl.interpolate(kl.Laplacian(1.0), torch.eye(2), torch.ones(3, 1))
        Traceback (most recent call last):
        kl.errors.InputError: x and y must have one row per sample; got 2 and 3
    """


class DataNotFoundError(InputError):
    """A data set is neither on disk nor could it be downloaded.

    The user can mend the error: give the folder that holds the data set (`data_dir`, --data-dir or KL_DATA_DIR), or
    download the data set with `kl data download NAME` on a machine with a network.

    Example:
        >>> import datamodules
        >>> datamodules.MNISTDataModule(data_dir="no/such/folder", download=False).setup()
        Traceback (most recent call last):
        kl.errors.DataNotFoundError: mnist was not found at .../no/such/folder/... and was not downloaded ...
    """


class CheckpointError(InputError):
    """A checkpoint file is missing, damaged, or not one of kl's; or it belongs to other data or another kernel.

    The user can mend the error: give another file, resume with the options of the first run, or train again.

    Example:
        >>> import kl
        >>> kl.load_machine("nowhere.ckpt")
        Traceback (most recent call last):
        kl.errors.CheckpointError: checkpoint nowhere.ckpt cannot be read: there is none: give the last.ckpt of a run...
    """


class PackageClashError(InputError, ImportError):
    """Another package has the name of one of those that are installed with kl: datamodules, callbacks or recipes.

    The user can mend the error: rename or uninstall the package whose path the message names, or take its folder from
    Python's path.
    """


class MemoryBudgetError(KLError):
    """A computation needs more memory than its stated budget; kl raises the error before the computation starts.

    The user can mend the error: raise the budget (`memory`, --memory), choose the solver that the message names, or
    use fewer rows. The message states the bytes needed and the bytes allowed.

    Example:
        >>> import torch, kl
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> kl.interpolate(kl.Laplacian(1.0), x, x, memory="1KB")
        Traceback (most recent call last):
        kl.errors.MemoryBudgetError: the solve by conjugate gradients of n=20 rows needs ..., more than the budget of...
    """


class SingularKernelError(KLError):
    """The kernel matrix could not be factorised, even with jitter on its diagonal, or the kernel is zero on the data.

    The user can mend the error: give a ridge, a smaller bandwidth, another kernel, or fewer rows, because all of these
    raise the smallest eigenvalue of the matrix.

    Example:
        >>> import torch, kl
        >>> kl.interpolate(kl.Polynomial(degree=1, bias=0.0), torch.zeros(2, 1), torch.ones(2, 1))
        Traceback (most recent call last):
        kl.errors.SingularKernelError: kernel Polynomial(...) is zero on every training row: choose another kernel, ...
    """


class NoAnswerError(KLError):
    """Another rank of the run hangs or was lost."""


class DivergenceError(KLError):
    """Training still diverges after the step size was halved as often as allowed.

    The user can mend the error: leave `step_size` and `batch_size` on "auto", raise `subsample`, because the step size
    rests on eigenvalues that the subsample estimates, or look for extreme values in the features.

    Example:
        >>> from kl.eigenpro.divergence import MAX_STEP_CUTS, StepCuts
        >>> cuts, step_size = StepCuts(), 1.0
        >>> for _ in range(MAX_STEP_CUTS + 1):
        ...     step_size = cuts.cut(step_size, epoch=0)
        Traceback (most recent call last):
        kl.errors.DivergenceError: training still diverges at step size 0.000244 after 12 halvings: use step_size=...
    """
