"""RKHS norms, inner products and distances."""

from kl.rkhs.expansion import (
    evaluate,
    inner_product,
    inner_product_per_class,
    rkhs_distance,
    rkhs_norm,
    rkhs_norm_per_class,
)
from kl.rkhs.streaming import norm_increment

__all__ = [
    "evaluate",
    "inner_product",
    "inner_product_per_class",
    "norm_increment",
    "rkhs_distance",
    "rkhs_norm",
    "rkhs_norm_per_class",
]
