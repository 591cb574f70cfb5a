"""Class labels in a file, which holds them as texts, and as y had them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kl.errors import CheckpointError

KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}
"""How a file calls the kinds of NumPy's dtypes; all others are "str"."""


def kind_of(
    labels: np.ndarray,  # shape: (c,)
) -> str:
    """ "bool", "int", "float" or "str"."""
    return KINDS.get(labels.dtype.kind, "str")


def labels_of(texts: Sequence[str], kind: str) -> np.ndarray:
    """The labels that `str` has made these texts of, shape (c,).

    Raises:
        CheckpointError: a text is no label of this kind.
    """
    try:
        if kind == "bool":
            return np.array([{"False": False, "True": True}[text] for text in texts])
        if kind in ("int", "float"):
            return np.array([{"int": int, "float": float}[kind](text) for text in texts])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"its class names must be texts of {kind}; got {', '.join(texts)}: fit again") from error
    if kind != "str":
        raise CheckpointError(f"its labels must be bool, int, float or str; got {kind!r}: fit again")
    return np.array(texts, dtype=object)
