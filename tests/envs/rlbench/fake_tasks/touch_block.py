"""The one task of `fake_rlbench`: touch the block. Imported as `rlbench.tasks.touch_block`."""

from __future__ import annotations

from fake_rlbench import Task


class TouchBlock(Task):
    """Solved when the tip is at the block; spoiled when it has been under the table."""

    def variation_count(self) -> int:
        return 3
