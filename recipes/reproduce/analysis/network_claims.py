"""The statements of `networks`: who errs less in equal time, and what wrong labels do to models that fit them."""

from __future__ import annotations

from recipes.reproduce.page.presentation import Claim
from recipes.reproduce.published import B18
from recipes.reproduce.table import DataFrame, Row, groups, is_missing

FITTED = 0.01  # training error up to which a model counts as fitting its labels, noisy ones included
OURS = "asked here, of no paper"


def harmless_claim(noised: DataFrame, noise: float) -> Claim:
    """That models which fit noisy labels lose less by noise than 1-NN, which repeats each wrong label.

    `noised` is of one set, with the columns set, c, model, noise, test_error and train_error; the train_error of a
    model that stops before its last epoch is missing, and it is left out.
    """
    added: dict[str, float] = {}
    left = []
    for own in groups(noised, "model"):
        clean, wrong = (own[own["noise"] == level].iloc[0] for level in (0.0, noise))
        if is_missing(wrong["train_error"]):
            continue
        if wrong["train_error"] <= FITTED:
            added[wrong["model"]] = wrong["test_error"] - clean["test_error"]
        else:
            left.append(wrong["model"])
    first = noised.iloc[0]
    share = noise * (1 - 1 / first["c"])
    return Claim(
        f"{first['set']}, {share:.0%} of the training labels wrong: models that fit all but {FITTED:.0%} of them gain "
        "less than that in test error against clean labels",
        all(value < share for value in added.values()),
        "; ".join(f"{name} {100 * value:+.1f} points" for name, value in added.items())
        + "".join(f"; {name} does not fit them" for name in left),
        f"{B18} section 4",
    )


def ahead_claim(noised: DataFrame, kernel: str, networks: tuple[str, str]) -> Claim:
    """That an interpolating kernel machine errs less than a tuned network at every level of noise above 0.

    `noised` is of one set; `networks` are the network's last epoch and the epoch that is chosen on held-out rows.
    """
    errors = noised.pivot(index="noise", columns="model", values="test_error").astype(float)
    wrong = errors[errors.index > 0]
    last, chosen = networks
    return Claim(
        f"{noised['set'].iat[0]}: under label noise of {min(wrong.index):.0%} to {max(wrong.index):.0%} the "
        f"interpolant ({kernel}) errs less on clean labels than the convolutional network, even with the epoch that "
        "noisy held-out labels choose",
        bool((wrong[kernel] < wrong[list(networks)].min(axis=1)).all()),
        "; ".join(
            f"{noise:.0%} noise: {row[kernel]:.2%} against {row[chosen]:.2%} (last epoch {row[last]:.2%})"
            for noise, row in errors.iterrows()
        ),
        OURS,
    )


def equal_time_claim(kernel: Row, networks: DataFrame) -> Claim:
    """That the kernel machine errs less than each network does in its seconds; `within` is missing if no epoch ends."""
    within = [row["within"] for row in networks.to_dict("records")]
    return Claim(
        f"{kernel['set']}, n={kernel['n']}: in the same seconds the tuned convolutional network errs more than the "
        "kernel machine on patch features, with augmentation and without",
        all(is_missing(error) or error > kernel["test_error"] for error in within),
        f"{kernel['name']} {kernel['test_error']:.2%} in {kernel['seconds']:.0f} s; "
        + "; ".join(
            f"{row['name']} "
            + ("ends no epoch" if is_missing(row["within"]) else f"{row['within']:.2%}")
            + f", at its best {row['test_error']:.2%} in {row['seconds']:.0f} s"
            for row in networks.to_dict("records")
        ),
        OURS,
    )
