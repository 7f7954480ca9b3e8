"""Where in a scene the field holds nothing, so that it need not be asked there for every ray."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.voxels import cell_centres, cell_index

EDGE = 0.03  # metres: most that a cell measures
TRACE = 1e-10
"""Per metre: what is solid in a cell or a little beside it leaves more than this in its middle, though a 10⁷th of
what could be seen."""


def survey_shape(low: Tensor, high: Tensor) -> tuple[int, int, int]:
    """Cells along x, y and z of boxes [B, 3], of an edge of at most `EDGE`."""
    x, y, z = ((high - low).amax(dim=0) / EDGE).ceil().int().tolist()
    return x, y, z


def survey_points(low: Tensor, high: Tensor) -> Tensor:
    """[B, N, 3] the middles of all cells: where to ask for the density."""
    return cell_centres(low, high, survey_shape(low, high)).flatten(2).transpose(1, 2)


class EmptySpace:
    """A grid over each of B scenes' boxes. Space is taken for empty where there is no trace of density in the middles
    of the 2³ cells around; what is thinner than a cell may hide between, if it does not lie at a known point.

    Args:
        low, high: [B, 3] corners of the boxes. density: [B, N] per metre, at `survey_points`. points, batch_index:
            [M, 3] where something was seen, and whose [M]; None for nowhere.
    """

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        density: Tensor,
        points: Tensor | None = None,
        batch_index: Tensor | None = None,
    ) -> None:
        x, y, z = shape = survey_shape(low, high)
        held = (density > TRACE).float()
        if points is not None and batch_index is not None:
            held.view(-1)[_numbers(points, batch_index, low, high, shape)] = 1.0
        # Between the middles: boxes of which there is one more along each axis than of cells.
        self._held = F.max_pool3d(held.view(-1, 1, *shape), 2, 1, 1).flatten() > 0
        half = (high - low) / torch.tensor(shape, device=low.device) / 2
        self._grid = (low - half, high + half, (x + 1, y + 1, z + 1))

    def may_hold(self, points: Tensor) -> Tensor:
        """[B, N] bool: whether there may be something at points [B, N, 3]."""
        batch, count, _ = points.shape
        owner = torch.arange(batch, device=points.device).repeat_interleave(count)
        return self._held[_numbers(points.flatten(0, 1), owner, *self._grid)].view(batch, count)


def _numbers(points: Tensor, owner: Tensor, low: Tensor, high: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """[M] numbers of the cells that points [M, 3] of scenes [M] lie in, or next to."""
    index, _ = cell_index(points, owner, low, high, shape)
    x, y, z = torch.minimum(index.clamp(min=0), torch.tensor(shape, device=points.device) - 1).unbind(-1)
    return ((owner * shape[0] + x) * shape[1] + y) * shape[2] + z
