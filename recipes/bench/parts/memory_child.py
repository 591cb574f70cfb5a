"""A training run in a process of its own, which reports its peak memory.

python -m recipes.bench.parts.memory_child SPEC.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def resident(key: str) -> int | None:
    """VmRSS (now) or VmHWM (the most so far) of this process in bytes; None without /proc.

    getrusage does not serve, because on Linux its ru_maxrss starts from the value of the parent process.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"^{key}:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def main() -> None:
    """Train as the specification says; print the bytes before the data and at the peak, and what was kept.

    A few rows are trained on first, because the memory of the libraries themselves is not part of the budget.
    """
    import numpy as np
    import torch

    import kl
    from kl.errors import KLError
    from kl.system.memory import peak_memory
    from recipes.bench.parts.growth import random_data
    from recipes.bench.parts.training import train
    from recipes.bench.settings import BenchData

    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    on_gpu = spec["accelerator"] == "gpu"
    train(random_data(64, 32, coded=True), kl.Gaussian(1.0), epochs=1, accelerator=spec["accelerator"])
    before = 0 if on_gpu else resident("VmRSS") or peak_memory()
    with np.load(spec["file"]) as file:
        x, y, labels = (torch.from_numpy(file[name]) for name in ("x", "y", "labels"))
    data = BenchData("memory", x, y, labels if spec["classes"] else None)
    try:
        run = train(
            data,
            kl.build_kernel(spec["kernel"]),
            epochs=spec["epochs"],
            subsample=spec["subsample"],
            memory=spec["budget"],
            accelerator=spec["accelerator"],
            seed=spec["seed"],
        )
    except KLError as error:
        print("\n" + json.dumps({"error": str(error)}))
        return
    peak = peak_memory("cuda") if on_gpu else resident("VmHWM") or peak_memory()
    detail = {key: run.detail[key] for key in ("kept_rows", "kept_columns", "batch_size", "top_q", "subsample")}
    print("\n" + json.dumps({"peak_bytes": peak, "before_bytes": before, "error": None, **detail}))


if __name__ == "__main__":
    main()
