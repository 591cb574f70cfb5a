"""The statements of `images`: patches against pixels, larger dictionaries, whitening, a ridge; and published errors."""

from __future__ import annotations

from itertools import pairwise

from recipes.reproduce.page.presentation import Claim, Comparison
from recipes.reproduce.published import PATCHES_CIFAR, PATCHES_SOURCE
from recipes.reproduce.table import DataFrame

OURS = "of this project"
MAIN, PIXELS = "number of patches", "pixels"
RIDGE = 0.1


def claims(own: DataFrame) -> list[Claim]:
    """All claims of one set.

    Args:
        own: a row for each machine and ridge, with change, count, kernel_title, ridge, test_error and set. The change
            is `MAIN` of the machines that differ in the number of patches alone, in the order of that number.
    """
    curve, plain = own[own["change"] == MAIN], own[own["change"] == PIXELS]
    errors = own[~own["change"].isin([MAIN, PIXELS])].set_index("change")["test_error"]
    same = own[own["change"] == "eps 10"]["count"].iat[0]
    usual = curve[curve["count"] == same]["test_error"].iat[0]
    name = own["set"].iat[0]
    return [
        beats_pixels(curve, plain),
        falls(curve),
        dearer(name, same, "hardly any whitening", ("eps 0.01", usual), ("eps 10", errors["eps 10"]), PATCHES_SOURCE),
        dearer(name, same, "interpolation", (f"ridge {RIDGE:g}", usual), ("ridge 0", errors["ridge 0"]), OURS),
    ]


def beats_pixels(curve: DataFrame, plain: DataFrame) -> Claim:
    """That every dictionary has a lower test error than pixels under any kernel and ridge."""
    first, best = curve.iloc[0], plain.loc[plain["test_error"].astype(float).idxmin()]
    return Claim(
        f"{first['set']}: features of patches have a lower test error than pixels",
        bool((curve["test_error"] < best["test_error"]).all()),
        f"{first['count']} patches {first['test_error']:.2%}, {curve['count'].iat[-1]} patches "
        f"{curve['test_error'].iat[-1]:.2%}; pixels at best {best['test_error']:.2%}, {best['kernel_title']}, "
        f"ridge {best['ridge']:g}",
        PATCHES_SOURCE,
    )


def falls(curve: DataFrame) -> Claim:
    """That each larger dictionary has a lower test error."""
    errors = list(curve["test_error"])
    return Claim(
        f"{curve['set'].iat[0]}: the test error falls with each larger dictionary",
        all(after < before for before, after in pairwise(errors)),
        ", ".join(f"{count} patches {error:.2%}" for count, error in zip(curve["count"], errors, strict=True)),
        PATCHES_SOURCE,
    )


def dearer(name: str, count: int, text: str, usual: tuple[str, float], other: tuple[str, float], source: str) -> Claim:
    """That a change raises the test error; `usual` and `other` are names with errors."""
    return Claim(
        f"{name}: {text} costs accuracy",
        usual[1] < other[1],
        f"{count} patches: {usual[0]} {usual[1]:.2%}, {other[0]} {other[1]:.2%}",
        source,
    )


def beside_published(own: DataFrame) -> list[Comparison]:
    """Our error on colour CIFAR-10 at the published numbers of patches, or the largest of ours if that is fewer."""
    curve = own[own["change"] == MAIN]
    if not str(own["data"].iat[0]).startswith("cifar10") or curve["count"].max() < min(PATCHES_CIFAR):
        return []
    found = []
    for published, error in PATCHES_CIFAR.items():
        row = curve[curve["count"] <= published].iloc[-1]
        fewer = "" if row["count"] == published else f", ours {row['count']}"
        copy = "JPEG copy, " if row["data"].endswith("-jpeg") else ""
        note = f"{copy}n = {row['n']}, kernel machine; theirs: n = 50000, linear, crops and flips"
        quantity = f"CIFAR-10, {published} patches{fewer}: test error"
        found.append(Comparison(quantity, 100 * row["test_error"], 100 * error, PATCHES_SOURCE, "%", note=note))
    return found
