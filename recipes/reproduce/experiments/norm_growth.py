"""The RKHS norm against n under label noise: the figure that two reproductions failed at, and why they did."""

from __future__ import annotations

from typing import Any

from recipes.reproduce.analysis.growth import GROWTH_NOISES, exact_records, growth_draws, growth_points, growth_records
from recipes.reproduce.analysis.norm_claims import (
    coincide,
    fit_laws,
    identity_sentence,
    identity_table,
    interpolated_exceeds,
    law_sentences,
    noise_raises,
)
from recipes.reproduce.analysis.norm_figures import draw_classes, draw_laws, draw_norms, draw_spectra
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.presentation import Presentation, Table
from recipes.reproduce.points.eigenvalues import Eigenvalues
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.sample import KernelSpec, gaussian, laplacian
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import exact
from recipes.reproduce.sweep.point import Point, Results


class NormGrowth(Experiment):
    """[B18] Figure 4 at its bandwidths, the laws that fit it, and the same at a bandwidth where nothing shows."""

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
        records = [record for kernel in kernels for record in growth_records(setting, results, kernel)]
        narrow = [record for kernel in small for record in small_records(setting, results, kernel)]
        d = results[growth_points(setting, kernels[0])[0]]["d"]
        name = title(records[0]["data"])
        law_table, laws = fit_laws(kernels, records, d)
        spectra = {kernel: results[spectrum(setting, kernel)] for kernel in (*kernels, *small)}
        return Presentation(
            figures={
                "norm-growth": draw_norms(name, (*kernels, *small), records + narrow),
                "norm-per-class": draw_classes(name, kernels, records),
                "norm-laws": draw_laws(name, kernels, records, laws),
                "spectrum": draw_spectra(name, list(zip(kernels, small, strict=True)), spectra),
            },
            rows=records + narrow,
            claims=[
                *(noise_raises(kernel, records) for kernel in kernels),
                *(interpolated_exceeds(kernel, records) for kernel in kernels),
                *(coincide(kernel, narrow) for kernel in small),
            ],
            tables=[
                Table(
                    f"laws of the interpolated norm, {name}, least squares in log |f|",
                    ("", "A n^b: b", "rms residual", f"A exp(B n^(1/{d})): B", "rms residual", "best d", "d from"),
                    law_table,
                ),
                identity_table(spectra),
            ],
            sentences=[
                *law_sentences(laws, sorted({record["n"] for record in records}), d),
                *(identity_sentence(kernel, narrow, spectra[kernel]) for kernel in small),
            ],
        )


# The small bandwidth


def small_kernels(setting: Setting) -> tuple[KernelSpec, KernelSpec]:
    """Bandwidth 2, as in the reports; in proportion on digits."""
    bandwidth = 2.0 if setting.data("mnist") == "mnist" else 0.5
    return gaussian(bandwidth), laplacian(bandwidth)


def small_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """The draws of up to 10000 rows, with up to three seeds: the curves coincide."""
    return [(n, seed) for n, seed in growth_draws(setting) if n is not None and n <= 10_000 and seed < 3]


def small_exact(setting: Setting, kernel: KernelSpec, n: int | None, seed: int) -> Exact:
    """The interpolant at the small bandwidth."""
    return exact(setting, "mnist", n, kernel, seed, GROWTH_NOISES)


def small_records(setting: Setting, results: Results, kernel: KernelSpec) -> list[dict[str, Any]]:
    """As `growth_records`, of the interpolants alone."""
    return [
        record
        for n, seed in small_draws(setting)
        for record in exact_records(results[small_exact(setting, kernel, n, seed)], kernel, seed)
    ]


def spectrum(setting: Setting, kernel: KernelSpec) -> Eigenvalues:
    """The eigenvalues of K on a few thousand rows."""
    n = setting.choose(tiny=200, quick=1000, full=4000)
    return Eigenvalues(sample=setting.sample("mnist", n), kernel=kernel)
