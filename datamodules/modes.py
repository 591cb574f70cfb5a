"""Pixels of any kind as 8-bit gray or RGB, scaled by the range that the file declares; refused without a range."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

from kl.errors import InputError

BACKGROUNDS = {"white": 255, "black": 0}
"""The level of each background, which shows through transparent parts of an image."""

_DIRECT = ("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV")
_WITH_ALPHA = ("RGB", "P", "LA", "PA", "RGBA")


def check_background(background: str) -> str:
    """Return the background; raise InputError if it is neither white nor black."""
    if background not in BACKGROUNDS:
        raise InputError(
            f"background, over which transparent images are laid, must be {' or '.join(BACKGROUNDS)}; "
            f"got {background!r}"
        )
    return background


def declared_depth(image: Image.Image) -> int:
    """Bits of a sample by the file's header, or the format's default; call this before the pixels are loaded.

    Pillow's mode does not tell the bits: a PNG of 2 bits is "L", a PNG of 16 bits per colour is "RGB", a TIFF of 12
    bits is "I;16".
    """
    if image.format == "TIFF":
        return int(image.tag_v2.get(258, (1,))[0])  # type: ignore[attr-defined]
    if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" and image.tile:
        mode, _, bits = str(image.tile[0][3]).partition(";")  # for example "L;2" or "RGB;16B"
        return int(bits.rstrip("B") or (1 if mode == "1" else 8))
    return 16 if image.format == "PPM" and image.mode == "I" else 8  # Pillow scales PGM to 16 bits


def to_eight_bits(
    image: Image.Image,
    depth: int,
    name: str,
    background: str = "white",
) -> Image.Image:
    """The loaded image in mode "L" or "RGB".

    With v the value and b the declared bits: round(255 v / (2^b - 1)) for gray of more than 8 bits, round(255 v) for
    floats in 0..1. Of 16 bits per colour Pillow keeps the upper 8, which is at most one level less. With alpha a in
    0..1, the image is laid over the background: round(a v + (1 - a) background).

    Args:
        image: an image of any mode.
        depth: its `declared_depth`.
        name: the name of the image in error messages.
        background: "white" or "black".

    Raises:
        InputError: the range of the values is unknown, or this mode has no faithful form in 8 bits.
    """
    mode, key = image.mode, image.info.get("transparency")
    if mode == "F":
        return Image.fromarray(_of_floats(image, name))
    if mode.startswith("I"):
        values = _of_integers(image, depth, name)
        gray = Image.fromarray(_levels(depth, image)[values])
        return gray if key is None else _over(gray, Image.fromarray(_opaque(values != key)), background)
    if mode in ("1", "L"):
        gray = image.convert("L")
        if key is None:
            return gray
        # A PNG of 2 or 4 bits states its transparent value in its own units, but Pillow scales its pixels to 0..255.
        scaled = key * 255 // (2**depth - 1) if mode == "L" and depth < 8 else key
        return _over(gray, Image.fromarray(_opaque(np.asarray(gray) != scaled)), background)
    if mode in _WITH_ALPHA and image.has_transparency_data:
        if mode == "RGB" and depth > 8:
            raise InputError(
                f"{name} declares a transparent colour of 16 bits, of which only 8 are read: save it with an alpha "
                "channel, or with 8 bits"
            )
        full = converted(image, "RGBA")
        return _over(full.convert("RGB"), full.getchannel("A"), background)
    if mode in _DIRECT:
        return converted(image, "RGB")
    raise _unfaithful(name, mode, "there is no faithful way from there to 8-bit RGB")


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in a mode; the image itself if it has that mode already, because Pillow would copy it."""
    return image if image.mode == mode else image.convert(mode)


def _of_integers(image: Image.Image, depth: int, name: str) -> np.ndarray:
    """Gray values of 9 to 16 bits."""
    if image.mode == "I" and (image.format == "TIFF" or depth != 16):
        raise _unfaithful(name, image.mode, "what is white among its 32-bit or signed integers is not known")
    values = np.asarray(image)
    if values.max(initial=0) >= 2**depth:
        raise _unfaithful(name, image.mode, f"it holds {values.max()} where it declares {depth} bits")
    return values


def _levels(depth: int, image: Image.Image) -> np.ndarray:
    """The 8-bit level of every value of `depth` bits, shape (2^depth,)."""
    white = 2**depth - 1
    values = np.arange(2**depth, dtype=np.uint32)
    values = white - values if _white_is_zero(image) else values
    return ((values * 255 + white // 2) // white).astype(np.uint8)


def _of_floats(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # true for NaN, too
        raise _unfaithful(name, image.mode, f"its floats must be from 0 to 1, and are from {low:g} to {high:g}")
    if _white_is_zero(image):
        values = 1 - values
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF's PhotometricInterpretation says that 0 is white, which Pillow applies only up to 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(262, 0) == 0  # type: ignore[attr-defined]


def _unfaithful(name: str, mode: str, reason: str) -> InputError:
    return InputError(
        f"{name} has pixels of mode {mode!r}, and {reason}: save it as a PNG of 8 or 16 bits, "
        "or give arrays, as npz:FILE"
    )


def _opaque(where: np.ndarray) -> np.ndarray:
    return where.astype(np.uint8) * np.uint8(255)


def _over(picture: Image.Image, alpha: Image.Image, background: str) -> Image.Image:
    level = BACKGROUNDS[background]
    below = Image.new(picture.mode, picture.size, level if picture.mode == "L" else (level, level, level))
    below.paste(picture, mask=alpha)  # Pillow rounds the mean to the nearest level
    return below
