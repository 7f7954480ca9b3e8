"""Processes that train together, each with its share of every batch (data-parallel, on lightning-fabric).

`processes=N` starts them on this machine. Started by torchrun or by SLURM's srun instead, one is started per process
already, and `processes` says how many there are on each of `nodes` machines.
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
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from omegaconf import DictConfig, OmegaConf

from agents.sharding import shard
from manifield.devices import find_device
from manifield.errors import InputError

STRATEGIES = ("ddp", "fsdp")
"""ddp: every process has the whole network. fsdp: each has a part of its weights, gradients and optimiser's state."""
GONE = ("peer", "Connection")
"""Words of the error that a process gets when another one has gone."""


@contextlib.contextmanager
def team(config: DictConfig, work: Callable[[DictConfig, Fabric], None]) -> Iterator[Fabric]:
    """This process's place among those that train: as the first of `config.processes` that this starts, the others
    doing `work` beside it without a word but their errors; or the one that torchrun or srun gave it.

    Raises:
        InputError: another process gave up, or the number of processes is not the one that was started.
    """
    started = started_by()
    if started is not None:
        with _member(config, started) as fabric:
            yield fabric
        return
    if config.nodes > 1:
        raise InputError(f"nodes={config.nodes}: let torchrun or srun start the processes on every machine (README)")
    if config.processes == 1:
        yield _fabric(config, LightningEnvironment())
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
        yield _fabric(config, LightningEnvironment())
    except RuntimeError as error:
        if all(other.exitcode in (None, 0) for other in others):
            raise
        raise InputError("another process of this training gave up, see above") from error
    finally:
        _part()
        os.environ.clear()
        os.environ.update(before)
        for other in others:
            other.join(timeout=10)
            other.kill()


def started_by() -> ClusterEnvironment | None:
    """What has started one process for each share already: torchrun, or srun with several tasks; None if nobody has.

    Raises:
        InputError: srun was not told how many processes a machine has.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise InputError("SLURM has --ntasks, but no --ntasks-per-node: give that one, it is processes=") from error
    return None


@contextlib.contextmanager
def _member(config: DictConfig, started: ClusterEnvironment) -> Iterator[Fabric]:
    """The place of a process that torchrun or srun has started. Only the first one speaks and is to be interrupted."""
    count = started.world_size()
    if config.processes * config.nodes != count:
        raise InputError(
            f"processes={config.processes} on each of nodes={config.nodes}, but {count} processes were started: "
            "give processes= and nodes= as they were"
        )
    with contextlib.ExitStack() as stack:
        if started.global_rank() > 0:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            yield _fabric(config, started)
        except RuntimeError as error:
            if not any(word in str(error) for word in GONE):
                raise
            raise InputError("another process of this training gave up, see its own words") from error
        finally:
            _part()


def anyone(said: bool, fabric: Fabric) -> bool:
    """Whether any process says so; all are told the same."""
    if fabric.world_size == 1:
        return said
    count = fabric.all_reduce(torch.tensor(float(said), device=fabric.device), reduce_op="sum")
    assert isinstance(count, torch.Tensor)
    return bool(count > 0)


def mean_over(row: dict[str, float], fabric: Fabric) -> dict[str, float]:
    """Numbers averaged over all processes, each over those that have one (NaN: none); without those that nobody has."""
    values = torch.tensor(list(row.values()), dtype=torch.float64, device=fabric.device)
    sums = sum_over(torch.stack([values.nan_to_num(), values.isfinite().double()]), fabric)
    counted = zip(row, sums[0].tolist(), sums[1].tolist(), strict=True)
    return {name: value / count for name, value, count in counted if count}


def sum_over(values: torch.Tensor, fabric: Fabric) -> torch.Tensor:
    """A tensor's sum over all processes."""
    if fabric.world_size == 1:
        return values.clone()
    total = fabric.all_reduce(values.to(fabric.device), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    return total.cpu()


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fabric(config: DictConfig, environment: ClusterEnvironment) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for harmless in ("Grad strides do not match bucket view", "FSDP2-wrapped module"):
        warnings.filterwarnings("ignore", harmless)
    kind = find_device(config.device, config.processes).type
    fabric = Fabric(
        accelerator=kind,
        devices=config.processes,
        num_nodes=config.nodes,
        strategy=_strategy(config),
        plugins=[environment],
    )
    fabric.launch()
    return fabric


def _strategy(config: DictConfig) -> Strategy | str:
    count = config.processes * config.nodes
    if count == 1:
        return "auto"
    if config.strategy == "fsdp":
        return ModelParallelStrategy(shard, data_parallel_size=count, tensor_parallel_size=1)
    field = config.get("field") or {}
    # A field's loss with weight 0 leaves its parameters without a gradient.
    idle = bool(field) and 0 in (field.get("lambda_recon", 1), field.get("lambda_feat", 1))
    return DDPStrategy(find_unused_parameters=idle)


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
            work(config, _fabric(config, LightningEnvironment()))
        except KeyboardInterrupt:
            pass
        except InputError as error:
            print(f"manifield: error in process {rank}: {error}", file=sys.stderr, flush=True)
            os._exit(2)
        except RuntimeError as error:  # the first process has gone
            if not any(word in str(error) for word in GONE):
                raise
            os._exit(1)
