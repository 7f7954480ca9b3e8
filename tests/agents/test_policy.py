"""The network: shapes for any grid, labels and decoding that invert each other, and the paper's preset."""

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from perceiver_pytorch.perceiver_io import Attention as ReferenceAttention

from agents.config import AgentConfig
from agents.losses import policy_losses, position_labels
from agents.perceiver import Attention, Perceiver
from agents.policy import Policy, decode_position
from agents.tensors import UNKNOWN, Batch, Targets
from manifield.configuration import compose
from manifield.errors import InputError
from tests.agents.conftest import TINY


def batch(count: int = 2, proprioception: int = 13, words: int = 6, points: int = 500) -> Batch:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(TINY["low"]), torch.tensor(TINY["high"])
    mask = torch.ones(count, 5, dtype=torch.bool)
    mask[0, 3:] = False
    return Batch(
        points=low + torch.rand(count * points, 3, generator=generator) * (high - low),
        colours=torch.rand(count * points, 3, generator=generator) * 2 - 1,
        batch_index=torch.arange(count).repeat_interleave(points),
        words=torch.randn(count, 5, words, generator=generator),
        word_mask=mask,
        named=torch.rand(count, 2, 3, generator=generator),
        proprioception=torch.randn(count, proprioception, generator=generator),
        tool_position=torch.tensor([0.2, 0.0, 1.2]).expand(count, 3),
        tool_yaw=torch.zeros(count),
    )


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    return Policy(AgentConfig.from_mapping(TINY), words=6).eval()


def test_shapes_of_every_stage(policy):
    found = policy(batch())
    assert [tuple(q.shape) for q in found.q] == [(2, 8, 8, 6), (2, 5, 6, 7)]
    assert found.rotation.shape == (2, 3, 72) and found.gripper.shape == found.collision.shape == (2, 2)
    assert ((found.position >= found.low[1]) & (found.position <= found.high[1])).all()


def test_points_are_looked_at_in_round_numbers_when_acting(policy):
    """Or PyTorch remembers a plan for each number of them; those that fill up change nothing."""
    stage, looked = policy.stages[0], []
    hook = stage.point_encoder.register_forward_pre_hook(lambda _, arguments: looked.append(len(arguments[0])))
    for points in (40, 497, 503, 512, 20_000, 20_100):
        some = batch(points=points)
        acting = policy(some).q[0]
        stage.train()
        assert torch.allclose(acting, policy(some).q[0], atol=1e-4)
        stage.eval()
    hook.remove()
    assert looked == [1024, 80, 1024, 994, 1024, 1006, 1024, 1024, 40960, 40000, 40960, 40200]


def test_padding_words_do_not_matter(policy):
    first = batch()
    second = replace(first, words=first.words.clone())
    second.words[0, 3:] = 99.0
    assert torch.allclose(policy(first).q[0], policy(second).q[0], atol=1e-5)


def test_words_and_proprioception_matter(policy):
    first = policy(batch()).q[0]
    assert not torch.allclose(first, policy(replace(batch(), words=batch().words + 1)).q[0])
    assert not torch.allclose(first, policy(replace(batch(), proprioception=batch().proprioception + 1)).q[0])


def test_the_colours_that_are_named_matter(policy):
    first = policy(batch()).q[0]
    assert not torch.allclose(first, policy(replace(batch(), named=1 - batch().named)).q[0], atol=1e-4)
    nothing = replace(batch(), named=torch.full((2, 2, 3), torch.nan))
    assert torch.isfinite(policy(nothing).q[0]).all()


def test_samples_of_a_batch_do_not_mix(policy):
    """A sample alone gives what it gives in company."""
    both, mask = policy(batch()), batch().batch_index == 1
    one = batch()
    alone = Batch(
        one.points[mask], one.colours[mask], one.batch_index[mask] - 1, one.words[1:], one.word_mask[1:], one.named[1:],
        one.proprioception[1:], one.tool_position[1:], one.tool_yaw[1:],
    )  # fmt: skip
    assert torch.allclose(policy(alone).q[0][0], both.q[0][1], atol=1e-4)


def test_every_parameter_learns(policy):
    target = torch.tensor([[0.1, 0.1, 0.9], [0.3, -0.2, 1.0]])
    found = policy.train()(batch(), target, torch.Generator().manual_seed(0))
    targets = Targets(target, torch.full((2, 3, 72), 1 / 72), torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2))
    sum(policy_losses(found, targets, True).values()).backward()
    idle = [n for n, p in policy.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("soft", [True, False])
def test_a_perfect_q_decodes_to_its_target(soft):
    """Labels and decoding invert each other: soft within float rounding, hard within half a cell; non-cubic grids."""
    low, high = torch.tensor([[-0.3, -0.5, 0.7]]), torch.tensor([[0.7, 0.5, 1.1]])
    shape = (10, 8, 6)
    for _ in range(20):
        position = low + (0.1 + 0.8 * torch.rand(1, 3)) * (high - low)
        index, share = position_labels(position, low, high, shape, soft)
        q = torch.full((1, 480), -30.0).scatter(1, index, share.clamp(min=1e-12).log()).view(1, *shape)
        found = decode_position(q, low, high, soft)
        cell = (high - low) / torch.tensor(shape)
        assert ((found - position).abs() <= (1e-4 if soft else 0.5 * cell + 1e-6)).all()


def test_a_target_outside_a_crop_teaches_nothing():
    low, high = torch.zeros(1, 3), torch.ones(1, 3)
    _, share = position_labels(torch.tensor([[2.0, 0.5, 0.5]]), low, high, (4, 4, 4), True)
    assert share.sum() == 0


def test_unknown_collision_labels_teach_nothing(policy):
    position, rotation = torch.tensor([[0.1, 0.1, 0.9]] * 2), torch.full((2, 3, 72), 1 / 72)
    targets = Targets(position, rotation, torch.tensor([0, 1]), torch.tensor([UNKNOWN, UNKNOWN]), torch.ones(2))
    assert policy_losses(policy(batch(), position), targets, True)["collision"] == 0


def test_fused_attention_is_the_package_s_function():
    torch.manual_seed(0)
    ours, theirs = Attention(12, 20, heads=2, head_dim=8), ReferenceAttention(12, 20, heads=2, dim_head=8)
    ours.load_state_dict(theirs.state_dict())
    x, context, mask = torch.randn(2, 5, 12), torch.randn(2, 7, 20), torch.rand(2, 7) > 0.3
    mask[:, 0] = True
    assert torch.allclose(ours(x, context, mask), theirs(x, context, mask), atol=1e-6)
    assert torch.allclose(ours(x, context), theirs(x, context), atol=1e-6)


def test_latents_let_tokens_talk():
    torch.manual_seed(0)
    net = Perceiver(16, latents=4, latent_dim=16, depth=1, heads=2, head_dim=8)
    tokens = torch.randn(1, 6, 16, requires_grad=True)
    net(tokens)[0][0, 0].sum().backward()
    assert (tokens.grad[0, 1:].abs().sum(dim=1) > 0).all()


def test_unknown_fields_and_bad_boxes_are_refused():
    with pytest.raises(InputError, match="did you mean spacing"):
        AgentConfig.from_mapping({**TINY, "spacin": 1})
    with pytest.raises(InputError, match="did you mean widths"):
        AgentConfig.from_mapping({**TINY, "stages": [{**TINY["stages"][0], "width": [1]}]})
    with pytest.raises(InputError, match="must lie below"):
        AgentConfig.from_mapping({**TINY, "high": [0.0, 0.0, 0.0]})


def test_config_survives_a_round_trip():
    config = AgentConfig.from_mapping(TINY)
    assert AgentConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize(("preset", "millions"), [("peract", 33.2), ("gnfactor", 41.8)])
def test_the_papers_presets_have_their_sizes(preset, millions):
    """Within 1 % of the parameters that the published networks have."""
    values = OmegaConf.to_container(compose("train", [f"agent={preset}"]).agent)
    net = Policy(AgentConfig.from_mapping(values), words=512)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("preset", ["peract", "gnfactor", "gnfactor_fast"])
def test_the_papers_presets_make_a_step(preset):
    """Their own widths and labels, on a grid that a test can afford (20³ instead of 100³)."""
    values = OmegaConf.to_container(compose("train", [f"agent={preset}"]).agent)
    values["stages"][0]["shape"] = [20, 20, 20]
    values["stages"][0]["perceiver"]["latents"] = 64
    net = Policy(AgentConfig.from_mapping(values), words=512)
    found = net(batch(1, proprioception=4, words=512), torch.tensor([[0.1, 0.0, 0.9]]))
    zero = torch.zeros(1, dtype=torch.int64)
    targets = Targets(torch.tensor([[0.1, 0.0, 0.9]]), torch.full((1, 3, 72), 1 / 72), zero, zero, torch.ones(1))
    total = sum(policy_losses(found, targets, soft=False).values())
    total.backward()
    assert torch.isfinite(total) and found.q[0].shape == (1, 20, 20, 20)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
