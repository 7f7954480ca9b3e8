"""Where a run's numbers and pictures go: RUN/metrics.csv and RUN/pictures always, Weights & Biases if asked for."""

from __future__ import annotations

import csv
import io
import os
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np

from agents.report.pictures import png_bytes
from manifield.errors import InputError
from manifield.files import write_whole

WANDB_MODES = ("disabled", "offline", "online")


class Tracker:
    """Appends rows of numbers to RUN/metrics.csv and to W&B.

    Args:
        folder: of the run. first: steps already done; later rows of an earlier process are dropped, as those steps are
            done again. wandb: "disabled", "offline" (RUN/wandb, sync later) or "online". config: what W&B shows.
    """

    def __init__(self, folder: Path, first: int, wandb: str, config: dict[str, Any]) -> None:
        self.folder, self._package = folder, None
        self.path, self.rows, self._wandb = folder / "metrics.csv", self._read(folder / "metrics.csv", first), None
        self.earlier = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self.begin = time.perf_counter()
        if wandb != "disabled":
            os.environ.setdefault("WANDB_SILENT", "true")
            try:
                import wandb as package  # slow, and not needed by every run

                self._package = package
                self._wandb = package.init(
                    project="manifield",
                    name=folder.name,
                    dir=str(folder),
                    mode=wandb,  # type: ignore[arg-type]
                    config=config,
                    id=self._identity(),  # a run that goes on is the same one there
                    resume="allow",
                )
            except Exception as error:  # W&B raises many kinds: no login, no network, no write permission
                raise InputError(f"wandb={wandb} does not start ({error}): give wandb=disabled") from error

    def _identity(self) -> str:
        """The run's name at W&B: drawn once, kept in RUN/wandb.id."""
        file = self.folder / "wandb.id"
        if not file.is_file():
            write_whole(file, f"{secrets.token_hex(8)}\n")
        return file.read_text().strip()

    @staticmethod
    def _read(path: Path, first: int) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        with path.open() as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= first]

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row."""
        seconds = self.earlier + time.perf_counter() - self.begin
        self.rows.append({"step": step, "seconds": round(seconds, 2), **{k: round(v, 6) for k, v in values.items()}})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue())
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def show(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Keep pictures [H, W, 3] uint8 by name: RUN/pictures/NAME/step_000400.png."""
        for name, picture in pictures.items():
            file = self.folder / "pictures" / name / f"step_{step:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, png_bytes(picture))
        if self._wandb is not None and self._package is not None:
            self._wandb.log({f"pictures/{name}": self._package.Image(p) for name, p in pictures.items()}, step=step)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wandb is not None:
            self._wandb.finish()
