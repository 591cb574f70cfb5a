"""A kernel of images and their mirror images: the machine with it is that of twice the rows."""

import pytest
import torch

import kl
from kl import InputError
from kl.kernels import Gaussian, Laplacian, Mirrored, Polynomial, ReluNTK, kernel_from_config
from kl.rows.rows import Rows
from kl.testing import check_kernel

pytestmark = pytest.mark.numeric

SHAPE = (2, 5, 6)
BASES = [Gaussian(4.0), Laplacian(4.0), Polynomial(2), ReluNTK(2)]


def pictures(n=24, seed=0, levels=False):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, *SHAPE)
    if levels:
        return torch.randint(256, shape, generator=generator).float().flatten(1) / 64
    return torch.randn(shape, generator=generator, dtype=torch.float64).flatten(1)


def turned(x):
    return x.view(-1, *SHAPE).flip(3).flatten(1)


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("levels", [False, True])
def test_values_are_the_mean_over_both_images(base, levels):
    x, z = pictures(levels=levels), pictures(9, 1, levels)
    kernel = Mirrored(base, SHAPE, (2,))
    exact = [each.double() for each in (x, turned(x), z, turned(z))]
    expected = (base(exact[0], exact[2]) + base(exact[0], exact[3])) / 2
    tolerance = 1e-12 if not levels else 2e-5
    torch.testing.assert_close(kernel(x, z).double(), expected, rtol=tolerance, atol=0)
    assert torch.equal(kernel(turned(x), z), kernel(x, z)) or levels is False
    torch.testing.assert_close(kernel(z, x).T, kernel(x, z), rtol=tolerance, atol=0)
    torch.testing.assert_close(kernel.diag(x), kernel(x).diagonal(), rtol=max(tolerance, 1e-6), atol=0)


def test_images_that_are_their_own_mirror_image_have_the_value_of_the_part():
    x = pictures()
    x = x + turned(x)
    torch.testing.assert_close(Mirrored(Gaussian(4.0), SHAPE, (2,))(x), Gaussian(4.0)(x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("base", BASES[:2], ids=str)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_machine_is_that_of_images_and_mirror_images(base, ridge):
    x, y, new = pictures(), pictures(seed=2)[:, :3], pictures(7, 1)
    half = kl.interpolate(Mirrored(base, SHAPE, (2,)), x, y, ridge=ridge / 2)
    whole = kl.interpolate(base, torch.cat([x, turned(x)]), torch.cat([y, y]), ridge=ridge)
    torch.testing.assert_close(half.predict(new), whole.predict(new), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(half.predict(turned(new)), half.predict(new), rtol=1e-9, atol=1e-11)


def test_codes_of_turned_rows_are_those_of_turned_images():
    rows = Rows.of(pictures(levels=True))
    found, expected = rows.flipped(SHAPE, (2,)), Rows.of(turned(rows.data), like=rows)
    assert torch.equal(found.data, expected.data)
    if rows.codes is not None:
        assert torch.equal(found.codes.values, expected.codes.values)
        assert torch.equal(found.codes.squares, expected.codes.squares)


def test_it_is_a_kernel_that_files_can_hold():
    kernel = Mirrored(Gaussian("auto"), SHAPE, (1, 2))
    assert kernel_from_config(kernel.config()) == kernel
    resolved = kernel.resolve(pictures())
    assert resolved.part == Gaussian("auto").resolve(pictures())
    with pytest.raises(InputError, match="still"):
        kernel(pictures())
    check_kernel(resolved, pictures())
    assert not resolved.has_gradients
    rows = Rows.of(pictures())
    with pytest.raises(InputError, match="a mirrored kernel has no gradient to learn features from"):
        resolved.gradients(rows, rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, SHAPE, (2,)), "part must be a kernel of distances or inner products, .*; got 3"),
        ((Gaussian(1.0) + Gaussian(2.0), SHAPE, (2,)), "part must be a kernel of distances or inner products"),
        ((Gaussian(1.0), 60, (2,)), "shape must be a tuple of whole numbers; got 60"),
        ((Gaussian(1.0), (2, 0), (1,)), "each of shape must be a whole number, 1 or above; got 0"),
        ((Gaussian(1.0), SHAPE, 2), "axes must be a tuple of whole numbers; got 2"),
        ((Gaussian(1.0), SHAPE, ()), "axes must be different whole numbers from 0 to 2; got ()"),
        ((Gaussian(1.0), SHAPE, (2, 2)), "axes must be different whole numbers from 0 to 2"),
        ((Gaussian(1.0), SHAPE, (3,)), "axes must be different whole numbers from 0 to 2"),
        ((Gaussian(1.0), SHAPE, (-1,)), "axes must be different whole numbers from 0 to 2"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        Mirrored(*arguments)


def test_rows_of_another_width():
    with pytest.raises(InputError, match=r"rows of shape \(2, 5, 6\) have 60 features; got 59: give the rows' shape"):
        Mirrored(Gaussian(1.0), SHAPE, (2,))(torch.rand(3, 59))
