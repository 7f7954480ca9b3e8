"""Where in a scene the field holds nothing, so that it need not be asked there for every ray."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.voxels import cell_centres, cell_index

EDGE = 0.03  # metres: most that a cell measures


def survey_shape(low: Tensor, high: Tensor) -> tuple[int, int, int]:
    """Cells along x, y and z of boxes [B, 3], of an edge of at most `EDGE`."""
    x, y, z = ((high - low).amax(dim=0) / EDGE).ceil().int().tolist()
    return x, y, z


def survey_points(low: Tensor, high: Tensor) -> Tensor:
    """[B, N, 3] the middles of all cells: where to ask for the density."""
    return cell_centres(low, high, survey_shape(low, high)).flatten(2).transpose(1, 2)


class EmptySpace:
    """A grid over each of B scenes' boxes. Space is taken for empty where in the middle of a cell and of all its
    neighbours the density is low; what is thinner than a cell may hide between, if it does not lie at a known point.

    Args:
        low, high: [B, 3] corners of the boxes. density: [B, N] per metre, at `survey_points`. least: up to which
            density a cell is empty. points, batch_index: [M, 3] where something was seen, and whose [M]; None for
            nowhere.
    """

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        density: Tensor,
        least: float,
        points: Tensor | None = None,
        batch_index: Tensor | None = None,
    ) -> None:
        self.low, self.high = low, high
        self.shape = survey_shape(low, high)
        held = (density > least).float()
        if points is not None and batch_index is not None:
            held.view(-1)[self._cells(points, batch_index)] = 1.0
        grid = held.view(len(low), 1, *self.shape)
        self._held = (F.max_pool3d(grid, 3, 1, 1) > 0).flatten()

    def may_hold(self, points: Tensor) -> Tensor:
        """[B, N] bool: whether there may be something at points [B, N, 3]."""
        batch, count, _ = points.shape
        owner = torch.arange(batch, device=points.device).repeat_interleave(count)
        return self._held[self._cells(points.flatten(0, 1), owner)].view(batch, count)

    def _cells(self, points: Tensor, owner: Tensor) -> Tensor:
        """Numbers of the cells [M] that points [M, 3] lie in, or next to."""
        index, _ = cell_index(points, owner, self.low, self.high, self.shape)
        most = torch.tensor(self.shape, device=points.device) - 1
        x, y, z = torch.minimum(index.clamp(min=0), most).unbind(-1)
        return ((owner * self.shape[0] + x) * self.shape[1] + y) * self.shape[2] + z
