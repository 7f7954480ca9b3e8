"""What an agent is made of, as typed configs; the YAML files in `configs/agent` fill them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from manifield.errors import InputError, choose


@dataclass
class PerceiverConfig:
    """Sizes of the Perceiver. tokens: channels of a token. See `agents.perceiver.Perceiver` for the rest."""

    tokens: int
    latents: int
    latent_dim: int
    depth: int
    heads: int = 8
    head_dim: int = 64
    dropout: float = 0.0


@dataclass
class StageConfig:
    """One look at the scene: a voxel grid, its encoder, and Q-values for translation over its cells.

    shape: cells along x, y, z. size: edge of a crop around the previous stage's best position (metres); null for the
    whole box. jitter: how far (metres, uniform, per axis) training moves the crop off the true position.
    points: channels that a network on the points writes into a cell, of which `matches` are colour-word products;
    0 points for PerAct's 10 hand-made channels. named: channels for the colours that the instruction names
    (`perception.named_colours`). widths: U-Net channels per level, no level for PerAct's plain encoder.
    skips: the U-Net's skip connections. channels: of the deep volume. patch: cells per token edge.
    perceiver: null for none. decoder: "light" or "published", see `agents.decoders`.
    """

    shape: tuple[int, int, int]
    size: float | None = None
    jitter: float = 0.0
    points: int = 0
    matches: int = 0
    named: int = 0
    widths: tuple[int, ...] = (32, 64)
    skips: bool = True
    channels: int = 32
    patch: int = 2
    perceiver: PerceiverConfig | None = None
    decoder: str = "light"


@dataclass
class AgentConfig:
    """The whole agent; every field is explained beside its value in `configs/agent/laptop.yaml`."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    stages: tuple[StageConfig, ...]
    cameras: tuple[str, ...] | None = None
    spacing: float = 0.0
    language: dict[str, str] = field(default_factory=lambda: {"name": "minilm"})
    proprioception: str = "pose"
    context: int = 0
    rotation_bins: int = 72
    relative_yaw: bool = True
    polar_yaw: bool = True
    symmetric_gripper: bool = True
    soft_labels: bool = True
    heads_at_cell: bool = True
    hidden: tuple[int, int] = (256, 128)
    horizon: int = 10
    votes: int = 1

    def __post_init__(self) -> None:
        choose(self.proprioception, ("pose", "peract"), "agent.proprioception")
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InputError(f"agent.low {self.low} must lie below agent.high {self.high} on every axis")
        if not self.stages or self.stages[0].size is not None:
            raise InputError("agent.stages must begin with a stage over the whole box (size: null)")
        if not 1 <= self.votes <= 100:
            raise InputError(f"agent.votes={self.votes}: give a number of looks from 1 to 100")
        if self.rotation_bins % 2:
            raise InputError(
                f"agent.rotation_bins={self.rotation_bins}: give an even number, half a turn is half of it"
            )
        for number, stage in enumerate(self.stages):
            where = f"agent.stages[{number}]"
            if len(stage.shape) != 3 or min(stage.shape) < 1:
                raise InputError(f"{where}.shape={list(stage.shape)}: give cells along x, y and z")
            if stage.matches and (stage.matches >= stage.points or not self.context):
                raise InputError(f"{where}.matches={stage.matches}: needs more points than that, and agent.context > 0")
            if stage.named and not stage.points:
                raise InputError(f"{where}.named={stage.named}: needs a network on the points, points > 0")
            choose(stage.decoder, ("light", "published"), f"{where}.decoder")
            if stage.decoder == "published" and stage.perceiver is None:
                raise InputError(f"{where}.decoder=published decodes what a Perceiver read: give perceiver, too")
            if stage.perceiver and stage.perceiver.tokens % 2:
                raise InputError(f"{where}.perceiver.tokens={stage.perceiver.tokens}: give an even number")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> AgentConfig:
        """Build from a plain mapping (YAML, a checkpoint); unknown keys are refused."""
        data = known(cls, values, "agent")
        stages = []
        for number, raw in enumerate(data["stages"]):
            stage = known(StageConfig, raw, f"agent.stages[{number}]")
            if stage.get("perceiver"):
                where = f"agent.stages[{number}].perceiver"
                stage["perceiver"] = PerceiverConfig(**known(PerceiverConfig, stage["perceiver"], where))
            stage["shape"], stage["widths"] = tuple(stage["shape"]), tuple(stage.get("widths", (32, 64)))
            stages.append(StageConfig(**stage))
        data.update(stages=tuple(stages), low=tuple(data["low"]), high=tuple(data["high"]))
        if "hidden" in data:
            if isinstance(data["hidden"], int) or len(data["hidden"]) != 2:
                raise InputError(f"agent.hidden={data['hidden']}: give the widths of the heads' two layers, [256,128]")
            data["hidden"] = tuple(data["hidden"])
        if data.get("cameras"):
            cameras = data["cameras"]
            data["cameras"] = (cameras,) if isinstance(cameras, str) else tuple(cameras)
        return cls(**data)

    def to_mapping(self) -> dict[str, Any]:
        """Plain lists, numbers and strings: the inverse of `from_mapping`."""
        return asdict(self)


def known(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` as the fields of a dataclass.

    Raises:
        InputError: a key that it does not have, or none for a field without default. where: for the message.
    """
    names = [f.name for f in fields(kind)]
    for key in values:
        choose(key, names, f"key in {where}")
    for needed in fields(kind):
        if needed.default is MISSING and needed.default_factory is MISSING and needed.name not in values:
            raise InputError(f"{where} lacks {needed.name}")
    return dict(values)
