"""What commands say: numbers of things, numbers of any size, and lists that agree."""

import re

import numpy as np

from kl.kernels.names import kernel_names


def test_one_shard_of_one_row(kl):
    result = kl("data", "synthetic", "--rows", 1, "--test-rows", 1, "--output", "small")
    assert result.out == "1 training row in 1 shard and 1 test row written to small\n"
    result = kl("data", "synthetic", "--rows", 3, "--test-rows", 2, "--shard-rows", 2, "--output", "more")
    assert result.out == "3 training rows in 2 shards and 2 test rows written to more\n"


def test_help_and_errors_name_the_same_kernels(kl):
    from recipes.options.groups import KERNEL_HELP

    assert KERNEL_HELP.removesuffix(", or package.module:Class.").split(", ") == kernel_names()
    result = kl("fit", "--kernel", "nothing")
    assert f"Known: {', '.join(kernel_names())}; or" in result.err


def test_numbers_of_any_size_have_their_significant_digits(kl):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), 1e6 * rng.normal(size=50)
    np.savez("data.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    result = kl("fit", "--data", "npz:data.npz", "--epochs", 1)
    assert result.code == 0, result.err
    assert "1 epoch  " in result.out
    numbers = re.findall(r"\d+\.\d+(?:e[+-]\d+)?", result.out.split("RKHS distance")[0].split("test mse")[1])
    assert len(numbers) == 7  # test mse and RKHS norm, with those of the limit; RMSE, MAE and R2
    assert all(len(number.split("e")[0]) <= 8 for number in numbers), numbers
    assert re.search(r"test mse +\d\.\d{3}e\+1\d", result.out)
