"""The 3D encoders take any size and depend on what they should."""

import pytest
import torch

from perception.encoder import PointEncoder, UNet


@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (1, 3, 2), (12, 12, 9)])
def test_any_grid_size(shape):
    """Regression: the published encoder accepts only sizes ≡ 4 (mod 8)."""
    out = UNet(3, 4, (8, 16, 16))(torch.randn(2, 3, *shape))
    assert out.shape == (2, 4, *shape)


def test_context_and_skips_matter():
    torch.manual_seed(0)
    grid = torch.randn(1, 3, 8, 8, 8)
    net = UNet(3, 8, (8, 16), context=5)
    assert not torch.equal(net(grid, torch.zeros(1, 5)), net(grid, torch.ones(1, 5)))
    flat = UNet(3, 8, (8, 16), skips=False)
    flat.load_state_dict({k: v for k, v in net.state_dict().items() if "film" not in k})
    plain = UNet(3, 8, (8, 16))
    plain.load_state_dict(flat.state_dict())
    assert not torch.equal(flat(grid), plain(grid))


def test_matches_respond_to_colour_and_word():
    torch.manual_seed(0)
    net = PointEncoder(10, 12, context=5, matches=4)
    features, owner = torch.zeros(2, 10), torch.tensor([0, 0])
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1]])
    red = net(features, colours, owner, torch.ones(1, 5))
    blue = net(features, colours, owner, -torch.ones(1, 5))
    assert red.shape == (2, 12)
    assert not torch.allclose(red[0, -4:], red[1, -4:]) and not torch.allclose(red[:, -4:], blue[:, -4:])
