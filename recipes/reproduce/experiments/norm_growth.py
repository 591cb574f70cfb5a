"""The RKHS norm against n under label noise: the figure that two reports failed to reproduce, and the reason."""

from __future__ import annotations

from recipes.reproduce.analysis.growth import (
    GROWTH_NOISES,
    both_ways,
    growth_draws,
    growth_points,
    growth_rows,
    growth_table,
)
from recipes.reproduce.analysis.norm_claims import (
    coincide,
    fit_laws,
    identity_sentence,
    identity_table,
    interpolated_exceeds,
    law_sentences,
    law_table,
    noise_raises,
)
from recipes.reproduce.analysis.norm_figures import draw_classes, draw_laws, draw_norms, draw_spectra
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.presentation import Presentation
from recipes.reproduce.points.eigenvalues import Eigenvalues
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.sample import KernelSpec, gaussian, laplacian
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import exact
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import groups, rows_of, stacked, sweep_table


class NormGrowth(Experiment):
    """[B18] Figure 4 at its bandwidths, the laws that fit it, and the figure at a bandwidth without visible effect."""

    name = "norm-growth"
    title = "RKHS norm against n with 0, 1, 10% label noise, and laws of its growth"
    source = f"{B18} Figure 4 and Theorem 1; two student reports"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The points of `noise`, and those of the small bandwidth."""
        points = [point for kernel in setting.kernels("mnist") for point in growth_points(setting, kernel)]
        points += [
            small_exact(setting, kernel, n, seed)
            for kernel in small_kernels(setting)
            for n, seed in small_draws(setting)
        ]
        return points + [spectrum(setting, kernel) for kernel in (*setting.kernels("mnist"), *small_kernels(setting))]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Four figures: norms, norms of the classes, laws, spectra."""
        kernels, small = setting.kernels("mnist"), small_kernels(setting)
        growth = growth_table(setting, results, *kernels)
        narrow = both_ways(
            [small_exact(setting, each, *draw) for each in small for draw in small_draws(setting)], results
        )
        both = stacked([growth, narrow])
        spectra = sweep_table(
            [spectrum(setting, kernel) for kernel in (*kernels, *small)],
            results,
            small=lambda row: row["spec"] in small,
        )
        d = int(growth["d"].iat[0])
        laws = fit_laws(growth, d)
        return Presentation(
            figures={
                "norm-growth": draw_norms(both),
                "norm-per-class": draw_classes(growth),
                "norm-laws": draw_laws(laws),
                "spectrum": draw_spectra(spectra),
            },
            rows=growth_rows(both),
            claims=[
                *(noise_raises(own) for own in groups(growth, "kernel")),
                *(interpolated_exceeds(own) for own in groups(growth, "kernel")),
                *(coincide(own) for own in groups(narrow, "kernel")),
            ],
            tables=[law_table(laws, d), identity_table(spectra)],
            sentences=[
                *law_sentences(laws, d),
                *(
                    identity_sentence(own, row)
                    for own, row in zip(groups(narrow, "kernel"), rows_of(spectra[spectra["small"]]), strict=True)
                ),
            ],
        )


# The small bandwidth


def small_kernels(setting: Setting) -> tuple[KernelSpec, KernelSpec]:
    """Bandwidth 2, as in the reports; in proportion on digits."""
    bandwidth = 2.0 if setting.data("mnist") == "mnist" else 0.5
    return gaussian(bandwidth), laplacian(bandwidth)


def small_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """The draws of up to 10000 rows, with up to three seeds; more are not needed, because the curves coincide."""
    return [(n, seed) for n, seed in growth_draws(setting) if n is not None and n <= 10_000 and seed < 3]


def small_exact(setting: Setting, kernel: KernelSpec, n: int | None, seed: int) -> Exact:
    """The interpolant at the small bandwidth."""
    return exact(setting, "mnist", n, kernel, seed, GROWTH_NOISES)


def spectrum(setting: Setting, kernel: KernelSpec) -> Eigenvalues:
    """The eigenvalues of K on a few thousand rows."""
    n = setting.choose(tiny=200, quick=1000, full=4000)
    return Eigenvalues(sample=setting.sample("mnist", n), kernel=kernel)
