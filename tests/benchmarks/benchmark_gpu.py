"""What a GPU makes of the papers' presets: `python -m tests.benchmarks.benchmark_gpu STAGE --out FOLDER`.

* `ceilings`: the card's own, a product of two bf16 matrices of 8192² random numbers and a copy on the device.
* `steps`: training steps (`Trainer.step`: batching, forward, backward, optimiser; bf16; words of CLIP's size) of one
  scene, repeated to fill the batch. FLOPs are those of a whole step that torch's counter sees: matrix products,
  convolutions, attention; MFU their share of the measured product's rate. `--settings` are words for `manifield train`
  to try ("compile=true"), `--profile` tells where the time of gnfactor's goes.
* `success`: three tasks are recorded, `gnfactor` and `gnfactor_fast` are trained for the same number of steps as a user
  would (`--steps`, or as many as both together can make in `--minutes`), and evaluated on the same unseen scenes.

Every row is also a line of FOLDER/gpu.jsonl; logs of `success` lie in FOLDER, its data and runs in `--work`.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from agents.batching import Batcher
from agents.config import AgentConfig
from agents.parallel import team
from agents.policy import Policy
from agents.scene_field import SceneField, SceneFieldConfig
from agents.trainer import Learner, Trainer
from manifield.configuration import compose
from manifield.devices import find_device
from tests.benchmarks.benchmark_step import Words, no_work, scene

PRESETS = ("gnfactor", "gnfactor_fast", "peract")
PAIR = PRESETS[:2]
TASKS = "tasks=[open_drawer,slide_block_to_color_target,push_buttons]"
WARM_UP, OVERHEAD = 3, 1.2
"""Steps before those that are timed; how much longer one of `manifield train` takes, loading and logging."""
SETTINGS = {
    **{"out": Path("runs/gpu"), "work": Path("runs/gpu/work"), "repeats": 10, "minutes": 5.0, "batch": 8},
    **{"accumulate": 2, "learning-rate": 0.0005, "teacher": "efficientnet", "demonstrations": 20, "episodes": 25},
    **{"max-actions": 10, "workers": 14},
}


def tell(out: Path, text: str, **row: object) -> None:
    """A line on the screen, and its numbers in the file."""
    print(text, flush=True)
    with (out / "gpu.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of work on the device, told by its own clock."""
    taken = []
    for number in range(WARM_UP + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        if number >= WARM_UP:
            taken.append(begin.elapsed_time(end) / 1e3)
    return median(taken)


def ceilings(out: Path, _: argparse.Namespace) -> None:
    """Measure the card's."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    flops = 2 * 8192**3 / seconds(lambda: a @ b, 30)
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / seconds(lambda: target.copy_(source), 30)
    name, versions = torch.cuda.get_device_name(), f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    text = f"{name}, {versions}: bf16 product {flops / 1e12:.0f} TFLOP/s, copy {copied / 1e12:.2f} TB/s"
    tell(out, text, stage="ceilings", card=name, versions=versions, flops=flops, copied=copied)


@contextmanager
def training(preset: str, batch: int, *more: str) -> Iterator[Callable[[], object]]:
    """A function that makes one training step of a preset."""
    gc.collect()
    torch.cuda.empty_cache()
    words = [f"agent={preset}", f"batch={batch}", "data=none", "threads=4", *more]
    config = compose("train", [*words, *(["field=gnfactor"] * (preset in PAIR))])
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)  # as `manifield train`
    torch.backends.cudnn.benchmark = not config.deterministic
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    agent, field = AgentConfig.from_mapping(settings["agent"]), SceneFieldConfig.from_mapping(settings.get("field"))
    samples = [scene(agent, field)] * batch
    scene_field = None if field is None else SceneField(field, agent, Words.width, 512, (128, 128))
    with team(config, no_work) as fabric:
        learner = Learner(Policy(agent, Words.width), scene_field).to(fabric.device)
        trainer = Trainer(config, fabric, learner, Batcher(agent, Words()), None)  # type: ignore[arg-type]
        yield lambda: trainer.step(samples, 0)


def time_steps(preset: str, batch: int, repeats: int, *more: str) -> dict[str, float]:
    """Seconds of the first step and of later ones, the most GiB of tensors at a time, FLOPs."""
    begin = time.monotonic()
    with training(preset, batch, *more) as step:
        with FlopCounterMode(display=False) as counter:
            step()
        torch.cuda.synchronize()
        first = time.monotonic() - begin
        torch.cuda.reset_peak_memory_stats()
        spent = seconds(step, repeats)
        memory = torch.cuda.max_memory_allocated() / 2**30
    return {"first": first, "seconds": spent, "memory": memory, "flops": float(counter.get_total_flops())}


def steps(out: Path, a: argparse.Namespace) -> None:
    """The table of steps."""
    rows = map(json.loads, (out / "gpu.jsonl").read_text().splitlines())
    ceiling = [*(row["flops"] for row in rows if row["stage"] == "ceilings"), float("nan")][0]
    print(f"{'preset':14} batch  {'settings':32} first s   then ms  samples/s    GiB   TFLOP    MFU")
    for preset in a.presets:
        for batch in a.batches:
            for words in a.settings:
                row: dict[str, object] = {"stage": "steps", "preset": preset, "batch": batch, "settings": words}
                head = f"{preset:14} {batch:5}  {words:32}"
                try:
                    found = time_steps(preset, batch, a.repeats, *words.split())
                except Exception as error:  # memory, or what torch.compile refuses: the rest is still worth to know
                    reason = f"{type(error).__name__}: {error}"[:300]
                    tell(out, f"{head}  failed: {reason}", **row, failed=reason)
                    continue
                rate, share = batch / found["seconds"], found["flops"] / found["seconds"] / ceiling
                text = f"{found['first']:7.1f} {1e3 * found['seconds']:9.1f} {rate:10.2f} {found['memory']:6.1f}"
                text += f" {found['flops'] / 1e12:7.2f} {share:6.1%}"
                tell(out, f"{head} {text}", **row, **found, rate=rate, share=share)
    if a.profile:
        profile(out, PAIR[0], 4)


def profile(out: Path, preset: str, batch: int) -> None:
    """What takes the time: operations, by the time of their own kernels, and kernels."""
    both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with training(preset, batch, "deterministic=false") as step:
        for _ in range(WARM_UP):
            step()
        with torch.profiler.profile(activities=both) as profiler:
            step()
            torch.cuda.synchronize()
    found = profiler.key_averages()
    kernels = [event for event in found if event.device_type == torch.autograd.DeviceType.CUDA]
    total = sum(event.self_device_time_total for event in kernels)
    print(f"{preset}, batch {batch}: {total / 1e3:.1f} ms of kernels, {sum(k.count for k in kernels)} launches a step")
    for kind, events in (("kernel", kernels), ("operation", [e for e in found if e not in kernels])):
        for event in sorted(events, key=lambda e: -e.self_device_time_total)[:12]:
            spent = event.self_device_time_total / 1e3
            text = f"{kind:9} {spent:8.2f} ms {event.count:6} x  {event.key[:90]}"
            tell(out, text, stage="profile", kind=kind, name=event.key, ms=spent, count=event.count)


Job = tuple[str, Path, subprocess.Popen[bytes], float]


def start(out: Path, name: str, *words: str) -> Job:
    """`manifield …`, as a user would."""
    print(f"manifield {' '.join(words)}", flush=True)
    log, command = out / f"{name}.log", [sys.executable, "-m", "manifield", *words]
    return name, log, subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT), time.monotonic()


def wait(out: Path, job: Job) -> None:
    """Until it has ended; the end of what it said."""
    name, log, process, begin = job
    code, spent = process.wait(), time.monotonic() - begin
    tell(out, f"  {name}: {spent:.0f} s", stage="success", job=name, seconds=spent, code=code)
    print("\n".join(log.read_text(errors="replace").splitlines()[-25 if code else -9 :]), flush=True)
    if code:
        raise SystemExit(f"{name} ended with {code}")


def success(out: Path, a: argparse.Namespace) -> None:
    """Record, train both, evaluate both, compare."""
    data, runs = a.work / "data", {preset: a.work / "runs" / preset for preset in PAIR}
    views, crew = "field_views.count=6", f"workers={a.workers}"
    wait(out, start(out, "collect", "collect", f"data={data}", TASKS, f"episodes={a.demonstrations}", crew, views))
    if a.teacher != "none":
        wait(out, start(out, "features", "features", f"data={data}", f"teacher={a.teacher}", "teacher.side=128"))
    count = a.steps
    if count is None:
        each = sum(time_steps(preset, a.batch // a.accumulate, 5, *a.train)["seconds"] for preset in PAIR)
        count = max(1, int(60 * a.minutes / (each * a.accumulate * OVERHEAD)))
        gc.collect()
        torch.cuda.empty_cache()
    tell(out, f"{count} steps of {a.batch} samples each", stage="success", steps=count, batch=a.batch)
    learn = [f"data={data}", TASKS, "field=gnfactor", f"field.teacher={a.teacher}", "agent.language={name:minilm}"]
    learn += [f"steps={count}", f"batch={a.batch}", f"accumulate={a.accumulate}", f"learning_rate={a.learning_rate}"]
    learn += [f"checkpoint_every={count}", f"log_every={max(1, count // 20)}", "loaders=4", "threads=4"]
    learn += ["device=cuda", "wandb=disabled", *a.train]
    playing = []
    for preset, run in runs.items():
        wait(out, start(out, f"train_{preset}", "train", f"agent={preset}", f"run={run}", *learn))
        # While the next one trains, this one plays: the one takes the GPU, the other the processors.
        play = [f"run={run}", f"episodes={a.episodes}", crew, "device=cuda", f"max_actions={a.max_actions}"]
        playing.append(start(out, f"evaluate_{preset}", "evaluate", *play))
    for job in playing:
        wait(out, job)
    wait(out, start(out, "compare", "compare", *map(str, runs.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("ceilings", "steps", "success"))
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--train", nargs="*", default=[], help="further words for `manifield train`")
    parser.add_argument("--settings", nargs="+", default=["deterministic=true", "deterministic=false"])
    parser.add_argument("--profile", action="store_true")
    for name, value in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    a = parser.parse_args()
    find_device("cuda")
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "gpu.jsonl").touch()
    {"ceilings": ceilings, "steps": steps, "success": success}[a.stage](a.out, a)


if __name__ == "__main__":
    main()
