"""The published numbers that experiments are compared with, each with its source. Errors are fractions in [0, 1]."""

from __future__ import annotations

B18 = "[B18]"
MB19 = "[MB19]"

EPOCHS = (1, 5, 10, 20)

# [B18] Tables 3 and 4: test error of EigenPro 1 (batch 256, 160 eigenvectors, subsample 5000) after EPOCHS, and of the
# exact interpolant. By data and kernel.
TEST_ERROR = {
    ("mnist", "gaussian"): ((0.0174, 0.0126, 0.0121, 0.0124), 0.0124),
    ("mnist", "laplacian"): ((0.0213, 0.0161, 0.0157, 0.0158), 0.0157),
    ("cifar10", "gaussian"): ((0.5794, 0.5074, 0.5088, 0.5117), 0.5156),
    ("cifar10", "laplacian"): ((0.5586, 0.4898, 0.4880, 0.4879), 0.4875),
}
TEST_ERROR_SOURCE = {"mnist": f"{B18} Tables 3-4", "cifar10": f"{B18} Tables 3-4 (gray)"}

# [B18] Tables 3 and 4: training error after so many epochs.
TRAIN_ERROR = {
    ("mnist", "gaussian"): {1: 0.0044, 5: 0.00018, 10: 0.00003, 20: 0.0},
    ("mnist", "laplacian"): {1: 0.0032, 2: 0.0003, 5: 0.0},
    ("cifar10", "gaussian"): {1: 0.1873, 2: 0.0528, 5: 0.0023, 10: 0.0003, 20: 0.0},
    ("cifar10", "laplacian"): {1: 0.0695, 2: 0.0023, 5: 0.0, 10: 0.0, 20: 0.0},
}

# [B18] Tables 1 and 2: epochs of EigenPro 1 until zero training error, original and fully random labels, MNIST.
EPOCHS_TO_FIT = {"laplacian": (4, 7), "gaussian": (20, 873)}
EPOCHS_TO_FIT_SOURCE = f"{B18} Tables 1-2"
NETWORK_RATIO = 3.0  # Zhang et al. 2017, quoted in [B18]: epochs on random labels to epochs on the original ones
NETWORK_RATIO_SOURCE = f"Zhang et al. 2017, in {B18}"

# [B18] Tables 6 and 7: MNIST test error by n, a column for each classifier. At 10% label noise the test labels are
# noised too.
NEIGHBOURS_COLUMNS = ("gaussian", "laplacian", "1-NN", "3-NN", "5-NN")
NEIGHBOURS = {
    0.0: {
        500: (0.0935, 0.1127, 0.1455, 0.1584, 0.1668),
        1500: (0.0549, 0.0643, 0.0953, 0.0966, 0.0983),
        3000: (0.0410, 0.0494, 0.0771, 0.0750, 0.0747),
        7500: (0.0264, 0.0338, 0.0576, 0.0552, 0.0547),
        15000: (0.0207, 0.0239, 0.0460, 0.0434, 0.0432),
    },
    0.1: {
        500: (0.2098, 0.2108, 0.2890, 0.2713, 0.2537),
        1500: (0.1632, 0.1549, 0.2472, 0.2041, 0.1866),
        3000: (0.1400, 0.1385, 0.2278, 0.1791, 0.1605),
        7500: (0.1301, 0.1238, 0.2190, 0.1598, 0.1439),
        15000: (0.1216, 0.1141, 0.2121, 0.1476, 0.1306),
    },
}
NEIGHBOURS_SOURCE = {0.0: f"{B18} Table 6", 0.1: f"{B18} Table 7"}

SYNTHETIC_2_BAYES = 0.159  # [B18] section 4
SYNTHETIC_2_SOURCE = f"{B18} section 4, Synthetic 2"

# [MB19]: MNIST, Gaussian of bandwidth 5, one GPU of 12 GB: test error after epochs 1 to 5.
EIGENPRO_2_MNIST = (0.0153, 0.0143, 0.0130, 0.0123, 0.0128)
# The parameters that it chose, by the names that they have in our results.
EIGENPRO_2_MNIST_PLAN = {
    "lambda_1": ("lambda_1", 0.153),
    "lambda_1_damped": ("lambda_1 of the damped kernel", 6.66e-4),
    "top_q": ("q", 277),
    "batch_size": ("batch size", 1432),
    "step_size": ("step size", 751.0),
}
EIGENPRO_2_MNIST_SOURCE = f"{MB19}, MNIST"
# [MB19]: colour CIFAR-10 with rows of unit norm, ReLU NTK of depth 3, q = 335, m = 2000: test accuracy after 19 epochs.
NTK_CIFAR_ACCURACY, NTK_CIFAR_EPOCHS = 0.5945, 19
NTK_CIFAR_SOURCE = f"{MB19}, CIFAR-10"

# [A24]: CIFAR5M features, n = 5e6, d = 1280, one epoch on one A100, Laplacian of bandwidth 20: by p, accuracy in % and
# seconds of EigenPro 4, then of EigenPro 3.
EIGENPRO_4 = {
    64_000: (87.99, 271.0, 88.33, 1359.0),
    128_000: (88.25, 309.0, 88.42, 3014.0),
    256_000: (88.43, 406.0, 88.61, 7663.0),
    512_000: (88.58, 695.0, 88.56, 21845.0),
}
EIGENPRO_4_SOURCE = "[A24], EigenPro 4 against EigenPro 3"

# Thiry et al. 2021: CIFAR-10 (original pixels, n = 50000), a linear classifier on pooled responses to so many whitened
# patches of 6 x 6 pixels, trained with random crops and flips: test error.
PATCHES_CIFAR = {2048: 0.173, 16_384: 0.143}
PATCHES_SOURCE = "Thiry et al. 2021, arXiv:2101.07528"

REPORT = "student report 2"
