"""Features of image patches in a data module, in place of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kl.errors import InputError
from kl.features.patches import Patches


def patches_of(options: Mapping[str, Any] | None) -> Patches | None:
    """Patches with these options, which have learnt nothing yet; None of None.

    Raises:
        InputError: an option is unknown or out of its range.
    """
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise InputError(f"patches must be a dict of options of kl.Patches, or None; got {type(options).__name__}")
    known = [name for name, each in Patches.__dataclass_fields__.items() if each.init]
    if other := sorted(map(str, set(options) - set(known))):
        raise InputError(f"patches must be a dict of {', '.join(known)}; got {other[0]!r}")
    return Patches(**options)


def as_images(
    rows: Tensor,  # shape: (n, d)
    image_shape: tuple[int, int, int] | None,
    name: str,
) -> Tensor:
    """Rows of pixels as images, shape (n, channels, height, width).

    Raises:
        InputError: the rows are no images.
    """
    if image_shape is None:
        raise InputError(f"patches are of images, and the rows of {name} are none: leave them out")
    return rows.reshape(len(rows), *image_shape)
