"""Rows of features: floats or 8-bit integers, their norms, batches of rows, and pairs of two sets of rows."""

from kl.rows.rows import RowDataset, Rows

__all__ = ["RowDataset", "Rows"]
