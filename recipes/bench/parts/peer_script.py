"""One library's training as a script: python -P peer_script.py PEER PROBLEM.npz prints one JSON object.

Any Python that has the library can run it, because only kl's own entries import kl.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

WARM_UP = 256  # rows trained on first, because imports, code generation and threads are not compared
MEMORY = 12  # GB that EigenPro's code plans its batches for
Problem = dict[str, Any]
"""x (n, d), y (n, c), x_test and y_test float32, labels (n,), kernel, bandwidth, target (mse), device, seed."""
Scores = Callable[[np.ndarray], np.ndarray]
"""f(x), shape (m, c), of rows x, shape (m, d), computed after the clock has stopped."""


def kl_eigenpro(p: Problem) -> Scores:
    """`kl.KernelMachine`, stopped at the target."""
    import torch

    from recipes.bench.parts.training import StopAtMse, train
    from recipes.bench.settings import BenchData

    x, y, labels = (torch.from_numpy(p[name]) for name in ("x", "y", "labels"))
    data = BenchData("peers", x, y, labels if p["classes"] else None)
    accelerator, stop = "gpu" if p["device"] == "cuda" else "cpu", (StopAtMse(p["target"]),)
    run = train(data, _kl_kernel(p), epochs=1000, accelerator=accelerator, seed=p["seed"], callbacks=stop)
    p["epochs"], machine = len(run.detail["seconds_per_epoch"]), run.machine
    assert machine is not None  # train() made it
    return lambda rows: machine.forward(torch.from_numpy(rows).to(machine.device)).detach().cpu().numpy()


def kl_interpolate(p: Problem) -> Scores:
    """`kl.interpolate`."""
    import torch

    import kl

    x, y = (torch.from_numpy(p[name]).to(p["device"]) for name in ("x", "y"))
    solved = kl.interpolate(_kl_kernel(p), x, y)

    def scores(rows: np.ndarray) -> np.ndarray:
        values = solved.fitted if rows is p["x"] else solved.predict(torch.from_numpy(rows).to(x))
        return values.cpu().numpy()

    return scores


def sklearn_kernel_ridge(p: Problem) -> Scores:
    """A direct solve in float64."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances

    x, y = p["x"].astype(np.float64), p["y"].astype(np.float64)
    if p["kernel"] == "gaussian":
        model = KernelRidge(alpha=0.0, kernel="rbf", gamma=1 / (2 * p["bandwidth"] ** 2))
        model.fit(x, y)
        return lambda rows: model.predict(rows.astype(np.float64))
    gram = np.exp(euclidean_distances(x) / -p["bandwidth"])
    model = KernelRidge(alpha=0.0, kernel="precomputed").fit(gram, y)
    return lambda rows: np.exp(euclidean_distances(rows.astype(np.float64), x) / -p["bandwidth"]) @ model.dual_coef_


def sklearn_svc(p: Problem) -> Scores:
    """One-hot predictions of a hard-margin SVC, which has no mse because its loss is another."""
    from sklearn.svm import SVC

    model = SVC(C=1e6, gamma=1 / (2 * p["bandwidth"] ** 2), cache_size=2000).fit(p["x"], p["labels"])
    return lambda rows: np.eye(p["y"].shape[1])[model.predict(rows)]


def xrfm_lstsq(p: Problem) -> Scores:
    """xRFM's kernel regression without feature learning, its direct solver in float32."""
    return _xrfm(p, "lstsq", 0)


def xrfm_eigenpro(p: Problem) -> Scores:
    """xRFM's EigenPro with 1, 2, 4.. epochs, each from the start; the time is of the first run at the target."""
    for epochs in (2**i for i in range(11)):
        start = time.perf_counter()
        scores = _xrfm(p, "eigenpro", epochs)
        seconds = time.perf_counter() - start
        if _mse(scores(p["x"]), p["y"]) <= p["target"]:
            break
    p["seconds"], p["epochs"] = seconds, epochs
    return scores


def eigenpro_code(p: Problem) -> Scores:
    """The code of EigenPro's authors (github.com/EigenPro/EigenPro-pytorch), stopped at the target.

    It evaluates f on all training rows after every epoch, which kl need not, so that is not counted.
    """
    import torch
    from eigenpro2 import kernels
    from eigenpro2.models import KernelModel

    class Reached(Exception):
        """The training rows that are evaluated after an epoch are at the target."""

    class StoppedModel(KernelModel):
        epochs, evaluating = 0, 0.0

        def evaluate(self, x_eval: Any, y_eval: Any, *args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            found = super().evaluate(x_eval, y_eval, *args, **options)
            self.evaluating += time.perf_counter() - start
            if len(x_eval) > 1:
                self.epochs += 1
                if found["mse"] <= p["target"]:
                    raise Reached
            return found

    formula = kernels.gaussian if p["kernel"] == "gaussian" else kernels.laplacian
    x, y = (torch.from_numpy(p[name]).to(p["device"]) for name in ("x", "y"))
    model = StoppedModel(lambda a, b: formula(a, b, bandwidth=p["bandwidth"]), x, y.shape[1], device=p["device"])
    start = time.perf_counter()
    with contextlib.suppress(Reached):
        model.fit(x, y, x[:1], y[:1], epochs=1000, mem_gb=MEMORY, n_train_eval=len(x), seed=p["seed"])
    p["seconds"], p["epochs"] = time.perf_counter() - start - model.evaluating, model.epochs
    return lambda rows: torch.cat([model(part) for part in torch.from_numpy(rows).to(x).split(2048)]).cpu().numpy()


def gpytorch_cg(p: Problem) -> Scores:
    """GPyTorch's preconditioned conjugate gradients, to the tolerance that the target needs."""
    import gpytorch

    return _gpytorch(p, gpytorch.kernels.RBFKernel, gpytorch.kernels.MaternKernel)


def gpytorch_keops(p: Problem) -> Scores:
    """GPyTorch's conjugate gradients on KeOps kernels, which never hold K."""
    from gpytorch.kernels.keops import MaternKernel, RBFKernel

    return _gpytorch(p, RBFKernel, MaternKernel)


PEERS: dict[str, Callable[[Problem], Scores]] = {
    "kl EigenPro": kl_eigenpro,
    "kl.interpolate": kl_interpolate,
    "sklearn KernelRidge": sklearn_kernel_ridge,
    "sklearn SVC": sklearn_svc,
    "xrfm lstsq": xrfm_lstsq,
    "xrfm EigenPro": xrfm_eigenpro,
    "EigenPro's code": eigenpro_code,
    "gpytorch": gpytorch_cg,
    "gpytorch + KeOps": gpytorch_keops,
}
GAUSSIAN_ONLY = ("sklearn SVC",)


def _kl_kernel(p: Problem) -> Any:
    import kl

    return kl.build_kernel({"kernel": p["kernel"], "bandwidth": p["bandwidth"]})


def _xrfm(p: Problem, method: str, epochs: int) -> Scores:
    import torch
    from xrfm.rfm_src.kernels import LaplaceKernel
    from xrfm.rfm_src.recursive_feature_machine import RFM

    exponent = 2.0 if p["kernel"] == "gaussian" else 1.0  # exp(-(|x - z| / b)^exponent)
    kernel = LaplaceKernel(p["bandwidth"] * 2 ** (0.5 if exponent == 2 else 0.0), exponent)
    x, y = (torch.from_numpy(p[name]).to(p["device"]) for name in ("x", "y"))
    model = RFM(kernel, device=p["device"], verbose=False, tuning_metric="mse")
    options = {"epochs": epochs, "prefit_eigenpro": False} if method == "eigenpro" else {}
    model.label_centering = model.classification = False  # xrfm 0.4.5 reads these under EigenPro and never sets them
    model.fit((x, y), (x[:64], y[:64]), iters=0, method=method, reg=0.0, **options)
    return lambda rows: model.predict(torch.from_numpy(rows).to(p["device"])).cpu().numpy()


def _gpytorch(p: Problem, gaussian: Any, matern: Any) -> Scores:
    import gpytorch
    import torch

    kernel = gaussian() if p["kernel"] == "gaussian" else matern(nu=0.5)  # nu = 1/2 is the Laplacian
    kernel.lengthscale = p["bandwidth"]
    kernel = kernel.to(p["device"])
    x, y = (torch.from_numpy(p[name]).to(p["device"]) for name in ("x", "y"))
    # mse = r^2 mean(y^2) at relative residual r; the tolerance is r / 2, because GPyTorch tests the mean over outputs.
    tolerance = 0.5 * (p["target"] / float(y.square().mean())) ** 0.5
    settings = gpytorch.settings
    with torch.no_grad(), settings.cg_tolerance(tolerance), settings.max_cg_iterations(5000):
        alpha = kernel(x).add_diagonal(torch.tensor(1e-6, device=x.device)).solve(y)

    def scores(rows: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(rows).to(x).split(2048)
        with torch.no_grad():
            return torch.cat([(kernel(part, x) @ alpha) for part in parts]).cpu().numpy()

    return scores


def _mse(scores: np.ndarray, y: np.ndarray) -> float:
    return float(np.square(scores - y).mean())


def read_problem(path: str) -> Problem:
    """Read the problem that `peers.write_problem` wrote."""
    with np.load(path) as file:
        return {name: file[name] if file[name].ndim else file[name].item() for name in file.files}


def measure(peer: str, problem: Problem) -> dict[str, Any]:
    """Warm up on a few rows, then train on all; returns the seconds of training and the errors on both sets."""
    PEERS[peer]({**problem, **{name: problem[name][:WARM_UP] for name in ("x", "y", "labels")}})(problem["x"][:1])
    start = time.perf_counter()
    scores = PEERS[peer](problem)
    if problem["device"] == "cuda":
        import torch

        torch.cuda.synchronize()
    seconds = problem.get("seconds", time.perf_counter() - start)
    found = {"seconds": seconds, "epochs": problem.get("epochs"), "error": None}
    for name, x, y in (("train", problem["x"], problem["y"]), ("test", problem["x_test"], problem["y_test"])):
        values = scores(x)
        found[f"{name}_mse"] = None if peer == "sklearn SVC" else _mse(values, y)
        wrong = values.argmax(axis=1) != y.argmax(axis=1)
        found[f"{name}_error"] = float(np.mean(wrong)) if problem["classes"] else None
    return found


def main() -> None:
    """Read the problem, measure, print."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    try:
        found = measure(sys.argv[1], read_problem(sys.argv[2]))
    except Exception as error:  # a peer may raise anything
        found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
