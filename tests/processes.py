"""A function run by several processes that share a gloo process group, as the ranks of a Trainer do."""

import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Ranks are forked from a process that has imported this and nothing more: a second each, not five.
multiprocessing.set_forkserver_preload(["kl", "callbacks", "datamodules"])


def shared():
    """Options of a Trainer: the ranks that there are, or one device."""
    if not dist.is_initialized():
        return {"devices": 1}
    return {"devices": dist.get_world_size(), "strategy": "kernel_parallel"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_ranks(size, function, *args):
    """What `function(*args)` returns on each of `size` ranks; it must be importable."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _run, args=(size, free_port(), folder, function, args), nprocs=size, start_method="forkserver"
        )
        return [pickle.loads(Path(folder, str(rank)).read_bytes()) for rank in range(size)]


def _run(rank, size, port, folder, function, args):
    # As Lightning's launcher sets them: its Trainer then joins the ranks that are there.
    own = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in own.items()})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")  # whatever the host's name
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        found = function(*args)
        Path(folder, str(rank)).write_bytes(pickle.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()
