"""Real gloo ranks on this machine, started once and reused: `run(function, *args, ranks=2) -> [results]`.

The function must be importable and its arguments picklable. Ranks talk over loopback and meet at a file.
"""

import atexit
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(function: Callable[..., Any], *args: Any, ranks: int = 2) -> list[Any]:
    """Returns function(*args) of all ranks in order, or RuntimeError with a rank's traceback."""
    connections = _start_pool(ranks)
    for connection in connections:
        connection.send_bytes(pickle.dumps((function, args)))
    results = [pickle.loads(connection.recv_bytes()) for connection in connections]
    for rank, (_, failure) in enumerate(results):
        if failure:
            raise RuntimeError(f"rank {rank}: {failure}")
    return [result for result, _ in results]


@cache
def _start_pool(ranks: int) -> list[Connection]:
    folder = tempfile.TemporaryDirectory()
    context = mp.get_context("spawn")
    connections = []
    for rank in range(ranks):
        parent_end, child_end = context.Pipe()
        process = context.Process(
            target=_serve_rank, args=(rank, ranks, f"{folder.name}/rendezvous", child_end), daemon=True
        )
        process.start()
        child_end.close()
        atexit.register(process.join, 10)
        atexit.register(parent_end.close)
        connections.append(parent_end)
    atexit.register(folder.cleanup)
    return connections


def _serve_rank(rank: int, ranks: int, rendezvous: str, connection: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.FileStore(rendezvous, ranks)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(minutes=4))
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            break
        connection.send_bytes(pickle.dumps(_execute(request)))
    dist.destroy_process_group()


def _execute(request: bytes) -> tuple[Any, str | None]:
    try:
        function, args = pickle.loads(request)
        return function(*args), None
    except Exception:
        return None, traceback.format_exc()
