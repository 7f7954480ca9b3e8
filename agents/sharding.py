"""A network whose weights, gradients and optimiser's state are divided among processes (FSDP2, Zhao et al. 2023).

Under `strategy=fsdp` parameters are torch's DTensors: each process holds a slice, and a stage's weights are gathered
while it computes. What is written to and read from a checkpoint is whole, so that runs may go on with another strategy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def shard(learner: Any, mesh: DeviceMesh) -> nn.Module:
    """Divide an `agents.trainer.Learner` among a mesh's processes: stage by stage, then what is left."""
    processes = mesh["data_parallel"]
    for stage in learner.policy.stages:
        fully_shard(stage, mesh=processes)
    fully_shard(learner, mesh=processes)
    register_fsdp_forward_method(learner, "predict")
    module: nn.Module = learner
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether processes hold parts of a module's weights."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all processes; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a parameter of its shape is held: this process's part of it; every process has to ask."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


@contextmanager
def alone(module: nn.Module, wanted: bool) -> Iterator[None]:
    """While inside, and if wanted, gradients stay with the process that computes them, until a later part of the same
    batch gives them away."""
    if wanted and isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    elif wanted and is_sharded(module):
        exchanged: Any = module
        exchanged.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            exchanged.set_requires_gradient_sync(True)
    else:
        yield
