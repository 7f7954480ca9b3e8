"""Processes that train together, each with its share of every batch (data-parallel, on lightning-fabric).

`processes=N` starts them on this machine. Started by torchrun or SLURM instead, one is started per process already, and
`processes` says how many there are on each machine.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from manifield.devices import find_device
from manifield.errors import InputError

STARTED_BY = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")
"""Environment variables of what starts every process by itself."""


@contextlib.contextmanager
def team(config: DictConfig, work: Callable[[DictConfig, Fabric], None]) -> Iterator[Fabric]:
    """This process as the first of `config.processes`; the others do `work` beside it, without a word but their errors.

    Raises:
        InputError: another process gave up.
    """
    if config.processes == 1 or any(name in os.environ for name in STARTED_BY):
        yield _fabric(config)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    words = OmegaConf.to_yaml(config)
    others = [
        context.Process(target=_help, args=(words, rank, port, work), daemon=True)
        for rank in range(1, config.processes)
    ]
    before = dict(os.environ)
    for other in others:
        other.start()
    try:
        os.environ.update(_place(0, port))
        yield _fabric(config)
    except RuntimeError as error:
        if all(other.exitcode in (None, 0) for other in others):
            raise
        raise InputError("another process of this training gave up, see above") from error
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)
        for other in others:
            other.join(timeout=10)
            other.kill()


def anyone(said: bool, fabric: Fabric) -> bool:
    """Whether any process says so; all are told the same."""
    if fabric.world_size == 1:
        return said
    count = fabric.all_reduce(torch.tensor(float(said), device=fabric.device), reduce_op="sum")
    assert isinstance(count, torch.Tensor)
    return bool(count > 0)


def _fabric(config: DictConfig) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")
    field = config.get("field") or {}
    # A field's loss with weight 0 leaves its parameters without a gradient.
    idle = bool(field) and 0 in (field.get("lambda_recon", 1), field.get("lambda_feat", 1))
    strategy = DDPStrategy(find_unused_parameters=idle) if config.processes > 1 else "auto"
    kind = find_device(config.device, config.processes).type
    fabric = Fabric(accelerator=kind, devices=config.processes, strategy=strategy)
    fabric.launch()
    return fabric


def _place(rank: int, port: int) -> dict[str, str]:
    """What tells lightning-fabric who this process is."""
    return {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _help(words: str, rank: int, port: int, work: Callable[[DictConfig, Fabric], None]) -> None:
    """A further process: it stops when the first one does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(_place(rank, port))
    config = OmegaConf.create(words)
    assert isinstance(config, DictConfig)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            work(config, _fabric(config))
        except KeyboardInterrupt:
            pass
        except InputError as error:
            print(f"manifield: error in process {rank}: {error}", file=sys.stderr, flush=True)
            os._exit(2)
        except RuntimeError as error:  # the first process has gone
            if "peer" not in str(error) and "Connection" not in str(error):
                raise
            os._exit(1)
