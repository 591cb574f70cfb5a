"""The choice of the p centres of a general kernel model."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.products.low_rank import pivoted_cholesky
from kl.rows.rows import Rows

CENTERS_FROM = ("random", "kmeans", "rpcholesky")
KMEANS_BATCH = 4096  # rows of a step of mini-batch k-means


def choose_centers(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    p: int,
    how: str = "random",
    seed: int = 0,
) -> Tensor:
    """p centres for data like x, shape (p, d).

    - "random": rows of x, drawn without replacement.
    - "kmeans": the means of mini-batch k-means, about n p d flops an epoch; the means need not be rows of x.
    - "rpcholesky": rows drawn by randomly pivoted Cholesky, which are well spread in the RKHS. The draw takes n p
      values of memory and n p^2 flops. If fewer than p rows span K(X, X) up to rounding error, random rows are added.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: training rows, or a sample of them; at least p.
        p: how many centres.
        how: one of the above.
        seed: of the draw.

    Raises:
        InputError: `how` is none of these, or p is not from 1 to the rows of x.

    Source: k-means centres: Zhang, Tsang, Kwok 2008, Improved Nystrom low-rank approximation; pivots: Chen, Epperly,
    Tropp, Webber 2022, Randomly pivoted Cholesky.
    """
    check_one_of("centers_from", how, CENTERS_FROM)
    if not 1 <= p <= len(x):
        raise InputError(f"p must be from 1 to {len(x)}, the rows to choose centres from; got {p}")
    order = random_order(len(x), seed)
    if how == "random":
        return x[order[:p].to(x.device)]
    if how == "kmeans":
        return _cluster_means(x, p, seed)
    pivots = pivoted_cholesky(kernel, Rows.of(x), p, seed)[1].cpu()
    others = order[~torch.isin(order, pivots)]
    return x[torch.cat([pivots, others[: p - len(pivots)]]).to(x.device)]


def random_order(n: int, seed: int) -> Tensor:
    """The order of n rows of which "random" takes the first p, shape (n,)."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _cluster_means(x: Tensor, p: int, seed: int) -> Tensor:
    from sklearn.cluster import MiniBatchKMeans

    rows = x.cpu().numpy()
    means = MiniBatchKMeans(p, batch_size=max(KMEANS_BATCH, p), n_init=1, random_state=seed % 2**32).fit(rows)
    return torch.from_numpy(means.cluster_centers_).to(x)
