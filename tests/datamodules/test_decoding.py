"""Decoding of image files: every kind of pixel by its own range, alpha, orientation, and what is refused."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from datamodules.images import FORMATS, MAX_PIXELS, decode_image
from kl.errors import InputError

RAMP = np.array([[0, 64, 128, 192, 255]], dtype=np.uint8)
DEEP = np.array([[0, 64, 128, 129, 16384, 32768, 65535]], dtype=np.uint16)
DEEP_LEVELS = [0, 0, 0, 1, 64, 128, 255]  # 255 v / 65535 = v / 257, to the nearest
REPLACED = "save it as a PNG of 8 or 16 bits, or give arrays, as npz:FILE"


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def levels(source, **options):
    """The gray levels of a decoded row, which all three channels must have."""
    gray, colour = decode_image(source, "a", grayscale=True, **options), decode_image(source, "a", **options)
    assert gray.dtype == colour.dtype == np.uint8
    assert gray.shape == (1, *colour.shape[1:])
    assert all(np.array_equal(channel, gray[0]) for channel in colour)
    return gray[0, 0].tolist()


def refused(source, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        decode_image(source, "cat.file", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_gray_of_16_bits_is_scaled_by_its_range(kind):
    assert levels(saved(Image.fromarray(DEEP), kind)) == DEEP_LEVELS


def test_gray_of_16_bits_in_a_tiff_of_either_byte_order_and_of_either_zero():
    black = saved(Image.fromarray(DEEP), "TIFF")
    assert levels(saved(Image.fromarray(DEEP.astype(">u2")), "TIFF")) == DEEP_LEVELS
    # The entry of tag 262, PhotometricInterpretation: a SHORT; 1 is "black is zero", 0 "white is zero".
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    content = black.getvalue()
    assert content.count(entry) == 1
    white = io.BytesIO(content.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    assert levels(white) == [round(255 * (65535 - int(v)) / 65535) for v in DEEP[0]]


def test_integers_of_32_bits_have_no_known_white():
    file = saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF")
    refused(file, f"^cat.file has pixels of mode 'I', and what is white among its 32-bit .* is not known: {REPLACED}$")


def test_floats_from_0_to_1():
    values = np.array([[0, 0.25, 0.5, 0.75, 1]], dtype=np.float32)
    assert levels(saved(Image.fromarray(values), "TIFF")) == [0, 64, 128, 191, 255]
    for beyond, shown in ((255.0, "are from 0 to 255"), (-0.1, "are from -0.1 to 1"), (np.nan, "are from nan to nan")):
        values = np.array([[0, 0.5, 1, beyond]], dtype=np.float32)
        refused(saved(Image.fromarray(values), "TIFF"), f"of mode 'F', and its floats must be from 0 to 1, and {shown}")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(colour, bits, row, width, transparent=None):
    """A PNG of one row, by the specification: colour is 0 gray, 2 RGB, 4 gray with alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    extra = b"" if transparent is None else chunk(b"tRNS", transparent)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


def test_colours_of_16_bits_keep_their_upper_8():
    values = RAMP.astype(">u2") * 257
    zero = np.zeros_like(values)
    rgb = np.stack([values, zero, values], -1).astype(">u2").tobytes()
    assert decode_image(png(2, 16, rgb, 5), "a")[:, 0].tolist() == [RAMP[0].tolist(), [0] * 5, RAMP[0].tolist()]
    assert levels(png(4, 16, np.stack([zero, values], -1).astype(">u2").tobytes(), 5)) == [255, 191, 127, 63, 0]
    assert levels(png(6, 16, np.stack([zero] * 3 + [values], -1).astype(">u2").tobytes(), 5)) == [255, 191, 127, 63, 0]
    match = "cat.file declares a transparent colour of 16 bits, of which only 8 are read: save it with an alpha channel"
    refused(png(2, 16, rgb, 5, transparent=bytes(6)), match)


@pytest.mark.parametrize(
    ("bits", "row", "width", "expected"),
    [
        (1, [0b01010000], 4, [0, 255, 0, 255]),
        (2, [0b00011011], 4, [0, 85, 170, 255]),
        (4, [0x05, 0xAF], 4, [0, 85, 170, 255]),
        (8, [0, 5, 0xAF, 255], 4, [0, 5, 0xAF, 255]),
        (16, [0, 0, 0, 5, 1, 1, 255, 255], 4, [0, 0, 1, 255]),
    ],
)
def test_a_transparent_level_of_gray_is_in_the_units_of_the_file(bits, row, width, expected):
    assert levels(png(0, bits, bytes(row), width)) == expected
    second = {1: 1, 2: 1}.get(bits, 5)  # the value of the second pixel
    one_more = png(0, bits, bytes(row), width, transparent=struct.pack(">H", second))
    shown = [0 if bits != 1 and i == 1 else level for i, level in enumerate(expected)]
    if bits == 1:
        shown = [0, 0, 0, 0]  # both white pixels are transparent
    assert levels(one_more, background="black") == shown
    assert levels(one_more)[1] == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_black_shape_on_a_transparent_ground(kind):
    pixels = np.zeros((1, 5, 4), dtype=np.uint8)
    pixels[0, :, 3] = RAMP
    lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    file = saved(Image.fromarray(pixels), kind, **lossless)
    assert levels(file) == [255, 191, 127, 63, 0]  # (1 - a) 255
    assert levels(file, background="black") == [0] * 5
    with pytest.raises(InputError, match=r"^background, over which .*, must be white or black; got 'red'$"):
        decode_image(file, "a", background="red")


def test_alpha_of_other_kinds():
    grays = saved(Image.fromarray(np.stack([np.full_like(RAMP, 100), RAMP], -1)), "PNG")
    assert levels(grays) == [255, 216, 177, 138, 100]  # 255 + a (100 - 255)
    palette = Image.fromarray(RAMP).convert("P")
    for kind in ("PNG", "GIF"):
        assert levels(saved(palette, kind)) == RAMP[0].tolist()
        assert levels(saved(palette, kind, transparency=64)) == [0, 255, 128, 192, 255]
    colour = saved(Image.fromarray(np.stack([RAMP] * 3, -1)), "PNG", transparency=(64, 64, 64))
    assert levels(colour) == [0, 255, 128, 192, 255]


def test_colour_spaces():
    rgb = Image.fromarray(np.stack([RAMP] * 3, -1))
    assert levels(saved(rgb.convert("CMYK"), "TIFF")) == RAMP[0].tolist()
    assert levels(saved(Image.fromarray(RAMP).convert("1", dither=0), "PNG")) == [0, 0, 255, 255, 255]
    refused(saved(Image.new("LAB", (5, 1)), "TIFF"), "mode 'LAB', and there is no faithful way from there to 8-bit RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(9))
def test_pictures_are_turned_upright(kind, orientation):
    # Dark at the upper left, white at the lower right: every turn is told from every other.
    picture = Image.fromarray(np.arange(8 * 16, dtype=np.uint8).reshape(8, 16) * 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(file)).convert("L")  # Pillow's own
    assert expected.size == ((8, 16) if orientation >= 5 else (16, 8))
    assert np.array_equal(decode_image(file, "a", grayscale=True)[0], np.asarray(expected))
    if orientation == 6:  # the first column is shown as the first row, from the right
        shown = decode_image(file, "a", grayscale=True)[0].astype(int)
        assert np.abs(shown - np.rot90(np.asarray(picture).astype(int), -1)).max() < 8


def test_a_damaged_exif_block_says_nothing():
    file = saved(Image.fromarray(RAMP), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert levels(file) == RAMP[0].tolist()


def test_a_name_does_not_tell_what_a_file_holds(tmp_path, monkeypatch):
    """Pillow hands EPS, which is a program, to Ghostscript: it must never get that far."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    eps = tmp_path / "cat.jpg"
    Image.fromarray(np.stack([RAMP] * 3, -1)).save(eps, "EPS")
    with Image.open(eps) as opened:
        assert opened.format == "EPS"
    refused(eps, "cat.file cannot be read as an image .*: remove or replace the file")
    assert not set(FORMATS) & {"EPS", "MPEG", "WMF", "FPX", "MIC", "ICNS", "PSD"}


def huge(side):
    """A PNG of side x side black pixels of one bit."""
    row = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def test_the_number_of_pixels_is_looked_at_before_they_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    path.write_bytes(huge(13000))
    assert path.stat().st_size < 30_000
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
        refused(path, rf"has 13000 x 13000 = 169000000 pixels, more than the limit of {MAX_PIXELS}: .*raise --max-pix")
    before = Image.MAX_IMAGE_PIXELS
    raised = decode_image(path, "a", grayscale=True, size=(4, 4), max_pixels=13000**2)
    assert raised.tolist() == np.zeros((1, 4, 4)).tolist()
    assert before == Image.MAX_IMAGE_PIXELS
    small = saved(Image.new("L", (10, 10)), "PNG")
    assert decode_image(small, "a", max_pixels=100).shape == (3, 10, 10)
    refused(small, "has 10 x 10 = 100 pixels, more than the limit of 99", max_pixels=99)


def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened, and waiting for ever"))
    pipe = tmp_path / "cat.png"
    os.mkfifo(pipe)
    match = "cat.file must be a file; it is a folder, pipe, socket or device: remove or replace it"
    refused(pipe, match)
    refused(tmp_path, match)
    link = tmp_path / "dog.png"
    link.symlink_to(pipe)
    refused(link, match)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "gone.png", r"cat.file cannot be read \(No such file or directory\): remove or replace it")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_cut_files_are_refused_in_one_line(kind):
    content = saved(Image.fromarray(np.tile(RAMP, (8, 3))), kind).getvalue()
    for length in range(0, len(content) // 2, 5):
        refused(io.BytesIO(content[:length]), "cat.file cannot be read as an image")
