"""Who has started a training's processes: nobody, torchrun or SLURM, told by environment variables."""

from __future__ import annotations

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import OmegaConf

from agents import parallel, training
from manifield.command import is_first_process
from manifield.errors import InputError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}
SRUN |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """Whatever this machine's own environment says."""
    for name in (*TORCHRUN, *SRUN, "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)


def places(environment) -> tuple[int, ...]:
    return environment.world_size(), environment.global_rank(), environment.local_rank(), environment.node_rank()


def test_nobody(monkeypatch):
    assert parallel.started_by() is None and is_first_process()
    for alone in ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {**SRUN, "SLURM_JOB_NAME": "interactive"}):
        with monkeypatch.context() as now:
            for name, value in alone.items():
                now.setenv(name, value)
            assert parallel.started_by() is None  # a job of one task starts its own processes


@pytest.mark.parametrize(
    ("variables", "kind"),
    [(TORCHRUN, TorchElasticEnvironment), ({**SRUN, "SLURM_JOB_NAME": "train"}, SLURMEnvironment)],
)
def test_torchrun_and_srun_give_every_process_its_place(monkeypatch, variables, kind):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = parallel.started_by()
    assert isinstance(found, kind) and places(found) == (4, 3, 1, 1)
    assert not is_first_process()


def test_torchrun_inside_a_slurm_job_counts(monkeypatch):
    for name, value in {**SRUN, **TORCHRUN}.items():
        monkeypatch.setenv(name, value)
    assert isinstance(parallel.started_by(), TorchElasticEnvironment)


def test_what_does_not_fit_is_one_line(monkeypatch, train_config):
    with pytest.raises(InputError, match="nodes=2: let torchrun or srun start the processes"):
        training.run(train_config("nodes=2"))
    with pytest.raises(InputError, match="batch=2 cannot be shared evenly by processes=2 on each of nodes=2"):
        training.run(train_config("nodes=2", "processes=2"))
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="processes=2 on each of nodes=1, but 4 processes were started"):
        training.run(train_config("processes=2"))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(InputError, match="no --ntasks-per-node: give that one"):
        training.run(train_config("processes=2"))


def test_a_config_says_how_the_network_is_shared(train_config):
    def strategy(*words: str):
        return parallel._strategy(OmegaConf.create(train_config(*words)))

    assert strategy("strategy=fsdp") == "auto"  # alone there is nobody to share with
    assert isinstance(strategy("processes=2"), DDPStrategy)
    assert isinstance(strategy("processes=2", "strategy=fsdp"), ModelParallelStrategy)
    with pytest.raises(InputError, match="unknown strategy 'fdsp': did you mean fsdp"):
        training.run(train_config("strategy=fdsp"))
    with pytest.raises(InputError, match="optimiser=lamb needs norms"):
        training.run(train_config("strategy=fsdp", "optimiser=lamb"))
    with pytest.raises(InputError, match="pictures_every needs the whole network"):
        training.run(train_config("strategy=fsdp", "pictures_every=5"))
