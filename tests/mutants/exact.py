"""Faults in the exact solutions: those that are kept, their solvers, and what they report."""

from mutants import Mutant

CACHE = "tests/test_exact_cache.py"
RESUMED = "tests/test_resumed_solve.py"

MUTANTS = [
    Mutant(
        "the checksums of a kept solution are not looked at",
        "kl/saved.py",
        "if (damaged := archive.testzip()) is not None:",
        "if (damaged := None) is not None:",
        CACHE,
    ),
    Mutant(
        "a kept solution of another key is used",
        "callbacks/exact_cache.py",
        'if values.get("key") != key:',
        'if "key" not in values:',
        CACHE,
    ),
    Mutant(
        "the residual of a kept solution is believed",
        "kl/exact/verified.py",
        "if not relative <= (1 + SLACK) * solution.relative_residual + ROUNDING:",
        "if not relative < 1e9:",
        CACHE,
    ),
    Mutant(
        "a kept least-squares solution of other targets is used",
        "kl/exact/verified.py",
        "if not bool((found.abs() <= allowed + TINY).all()):",
        "if not bool(found.isfinite().all()):",
        CACHE,
    ),
    Mutant(
        "the fitted values of a kept solution are believed",
        "kl/exact/verified.py",
        "if not bool(((again - fitted[rows]).abs() <= allowed).all()):",
        "if not bool(again.isfinite().all()):",
        CACHE,
    ),
    Mutant(
        "the norm of a kept solution is believed",
        "kl/exact/verified.py",
        "if not bool(((stated.square() - squares.clamp(min=0)).abs() <= allowed).all()):",
        "if not bool(stated.isfinite().all()):",
        CACHE,
    ),
    Mutant(
        "a kept solution looser than asked is used",
        "callbacks/exact_cache.py",
        "if solution.tolerance > tolerance or",
        "if",
        CACHE,
    ),
    Mutant(
        "a kept solution's own tolerance is not looked at",
        "callbacks/exact_cache.py",
        "if solution.tolerance > tolerance or",
        "if solution.relative_residual > tolerance or",
        CACHE,
    ),
    Mutant(
        "a solution that stalled keeps another solver from trying",
        "callbacks/exact_cache.py",
        'or solver not in ("auto", ours):',
        "or not ours:",
        CACHE,
    ),
    Mutant(
        "resumed conjugate gradients forget the best weights",
        "kl/exact/iteration.py",
        "return replace(search, state=state, best=best)",
        "return replace(search, state=state, best=self.zero().best)",
        RESUMED,
    ),
    Mutant(
        "resumed conjugate gradients forget what the last check found",
        "kl/exact/iteration.py",
        "return replace(search, state=state, best=best)",
        "return Search(state, best, self.system.relative(state.residual))",
        RESUMED,
    ),
    Mutant(
        "a resumed direction goes on with another preconditioner",
        "kl/exact/iteration.py",
        "if state.rank != (rank := self.preconditioner.rank):",
        "if state.rank < (rank := 0):",
        RESUMED,
    ),
    Mutant(
        "the best residual of a file is believed",
        "kl/exact/iteration.py",
        "best = replace(best, residual=residual, relative=relative)",
        "pass",
        RESUMED,
    ),
    Mutant(
        "a machine resumed with another preconditioner keeps its direction",
        "kl/conjugate.py",
        'self._rank_of_direction = extra["rank_of_direction"]',
        "self._rank_of_direction = self.rank",
        "tests/test_conjugate.py -k less_memory",
    ),
    Mutant(
        "an exact solve that does not fit is refused after the work",
        "kl/interpolation.py",
        "    _check_budget(chosen, len(first), d, c, budget)\n    kernel = kernel.resolve(x)\n",
        "    kernel = kernel.resolve(x)\n    _check_budget(chosen, len(first), d, c, budget)\n",
        "tests/test_exact_memory.py -k refused_before",
    ),
    Mutant(
        "the least budget of conjugate gradients is not enough for them",
        "kl/exact/plan.py",
        "return 2 * pcg_memory(n, d, c, 1) - pcg_memory(n, d, c, 0)",
        "return pcg_memory(n, d, c, 1)",
        "tests/test_exact_memory.py -k least_budget_of",
    ),
    Mutant(
        "rows of a tile are converted without regard to their length",
        "kl/exact/triangle.py",
        "self.side = converted_rows(rows.data.shape[1], self.side)",
        "pass",
        "tests/test_exact_memory.py -k 20000-1-direct",
    ),
    Mutant(
        "an eigen-decomposition takes what it needs",
        "kl/exact/direct.py",
        "if (need := eigen_memory(n, d, c)) > budget:",
        "if (need := 0) > budget:",
        "tests/test_exact_memory.py -k eigen_decomposition_that",
    ),
]
