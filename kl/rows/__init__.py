"""Rows of features: floats or 8-bit integers, their norms, batches of them, and pairs of two sets."""

from kl.rows.rows import RowDataset, Rows

__all__ = ["RowDataset", "Rows"]
