"""What every method is given: rows, candidates and seconds, by --scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kl.tuning.features import SUBSAMPLE_ROWS

SCALES = ("quick", "medium", "full")
FOLDS = 5
GP_ROWS = 1000  # training rows beyond which a Gaussian process, of time n^3 a step, is not run
QUICK_SETS = ("yacht", "autompg", "housing", "energy", "vehicle", "tic-tac-toe", "german", "contraceptive")


@dataclass(frozen=True)
class Protocol:
    """Rows and budget of a run, the same for all methods."""

    splits: int | None
    """Splits of each set; None means all."""
    train_rows: int
    """Training rows at most; where there are more, so many are drawn by the seed."""
    test_rows: int | None
    """Test rows at most; None means all."""
    candidates: int
    """Candidates of each search."""
    seconds: float
    """No candidate is begun later than this after the start of a method on a split."""
    hard_seconds: float
    """A method that has not ended on a split after this is stopped, which is a failure."""
    threads: int | None
    """Threads of every method; None means all cores."""
    seed: int = 0

    @classmethod
    def of(cls, scale: str, seed: int = 0) -> Protocol:
        """The protocol of a scale, one of `SCALES`."""
        if scale == "full":
            return cls(None, 10_000, None, 24, 600.0, 3600.0, None, seed)
        if scale == "medium":
            return cls(2, 1000, 2000, 24, 15.0, 120.0, 1, seed)
        return cls(2, 1000, 400, 24, 8.0, 60.0, 1, seed)

    def within(self, seconds: float) -> Protocol:
        """The same with other seconds, and the time after which a method is stopped in proportion."""
        return replace(self, seconds=seconds, hard_seconds=seconds * self.hard_seconds / self.seconds)

    @property
    def budget(self) -> str:
        """The budget in words."""
        threads = {None: "all cores", 1: "one thread"}.get(self.threads, f"{self.threads} threads")
        return (
            f"Budget of each method and split, on {threads}: {self.candidates} candidates. Of the peers these are "
            f"the library's defaults and random draws, by {FOLDS}-fold cross-validation on the training rows, none "
            f"begun after {self.seconds:g} s. Of kl they are {self.candidates} kernels and bandwidths by "
            "leave-one-out, each with 9 ridges that its decomposition gives at little cost, without a limit of time. "
            "Of rfm, kl's recursive feature machine, they are its defaults for each kernel and metric and "
            f"random draws, by {FOLDS} parts of at most {SUBSAMPLE_ROWS} training rows, none begun after "
            f"{self.seconds:g} s; one that is far behind on the first parts is not tried on the others. "
            f"A Gaussian process instead maximises its marginal likelihood for {self.seconds:g} s at most. After "
            f"{self.hard_seconds:g} s a method is stopped, which is a failure."
        )
