"""The measuring itself is measured: an expert scores, chance does not, and the number of workers changes nothing."""

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agents import evaluation, training
from agents.offline import evaluate_offline
from manifield.configuration import compose
from manifield.errors import InputError


def evaluate(run: Path, *words: str) -> dict:
    named = {word.split("=")[0]: word.split("=")[1] for word in words}
    name = named.get("name") or named.get("policy", "trained")
    config = compose("evaluate", [f"run={run}", "episodes=2", "split=dev", "max_actions=4", *words, f"name={name}"])
    evaluation.run(config)
    return json.loads((run / "evaluation" / name / "results.json").read_text())


def episodes(run: Path, name: str) -> dict:
    lines = (run / "evaluation" / name / "episodes.jsonl").read_text().splitlines()
    return {(e["task"], e["index"]): e for e in map(json.loads, lines)}


def timeless(episode: dict) -> dict:
    return {k: v for k, v in episode.items() if k not in ("seconds_per_action", "action_seconds")}


def test_expert_scores_chance_does_not_and_workers_do_not_matter(trained):
    assert evaluate(trained, "policy=expert", "max_actions=6", "workers=1")["mean_success"] == 1.0
    assert evaluate(trained, "policy=random", "workers=1")["mean_success"] == 0
    evaluate(trained, "name=one", "workers=1")
    evaluate(trained, "name=two", "workers=2")
    one, two = ({job: timeless(e) for job, e in episodes(trained, name).items()} for name in ("one", "two"))
    assert one == two and len(one) == 4


def test_expert_and_chance_need_no_agent(tmp_path):
    words = ["tasks=[push_buttons]", "env.cameras=[front]", "env.image_size=32", "workers=1"]
    assert evaluate(tmp_path / "none", "policy=expert", "max_actions=6", *words)["mean_success"] == 1.0
    assert evaluate(tmp_path / "none", "policy=random", *words)["mean_success"] == 0.0
    with pytest.raises(InputError, match="no agent in .*none' whose tasks policy=expert could play: give tasks="):
        evaluate(tmp_path / "none", "policy=expert")


def test_seeds_checkpoints_and_variations_are_told_together(train_config, tmp_path, capsys):
    training.run(train_config("steps=2", "checkpoint_every=1", "tasks=[push_buttons]"))
    words = ["episodes=2", "split=dev", "max_actions=1", "seeds=[0,4]", "checkpoints=all", "variations=[7]"]
    evaluation.run(compose("evaluate", [f"run={tmp_path / 'run'}", *words, "workers=1"]))
    folder = tmp_path / "run/evaluation"
    names = [f"trained_dev_{seed}_variations_step_00000{step}" for seed in (0, 4) for step in (1, 2)]
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == names
    played = [e for name in names for e in episodes(tmp_path / "run", name).values()]
    assert {e["variation"] for e in played} == {7} and len({e["seed"] for e in played}) == 4
    assert all(e["failure"] and len(e["action_seconds"]) == e["steps"] == 1 for e in played)
    assert (folder / names[0] / "results.csv").read_text().startswith("task,episodes,successes,success,low,high")
    rows = list(csv.DictReader((folder / "trained_all.csv").open()))
    assert [(r["variant"], r["seeds"], r["episodes"]) for r in rows] == [
        (f"step_00000{step}", "2", "4") for step in (1, 2)
    ]
    assert "2 seeds of scenes" in capsys.readouterr().out
    with pytest.raises(InputError, match="another variations"):
        evaluation.run(compose("evaluate", [f"run={tmp_path / 'run'}", *words[:-1], "variations=[8]", "workers=1"]))
    with pytest.raises(InputError, match="variations=.99.: push_buttons has variations 0 to 49"):
        evaluation.run(compose("evaluate", [f"run={tmp_path / 'run'}", "variations=[99]"]))


def test_an_interrupted_evaluation_goes_on_with_what_is_missing(trained):
    evaluate(trained, "workers=1")
    whole = episodes(trained, "trained")
    log = trained / "evaluation/trained/episodes.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:2], lines[2][:40]]))  # killed while it wrote the third line
    evaluate(trained, "workers=1")
    again = episodes(trained, "trained")
    assert {k: timeless(v) for k, v in again.items()} == {k: timeless(v) for k, v in whole.items()}
    kept = [k for k in whole if again[k] == whole[k]]
    assert len(kept) >= 2  # played once only: even their times are the same


def test_what_was_played_before_is_named_and_counted_once(trained, capsys):
    evaluate(trained, "workers=1", "episodes=2")
    capsys.readouterr()
    assert evaluate(trained, "workers=1", "episodes=1")["tasks"]["push_buttons"]["episodes"] == 1
    printed = capsys.readouterr()
    assert "2 of 2 episodes were played before" in printed.out and "2/2 episodes" in printed.err


def test_other_weights_start_anew_and_other_rules_are_refused(trained):
    """Regression: results were dropped without a word when a rule of the evaluation changed."""
    evaluate(trained, "workers=1", "episodes=1")
    with pytest.raises(InputError, match="another max_actions .4.: give this one another name="):
        evaluate(trained, "workers=1", "episodes=1", "max_actions=5")
    before = episodes(trained, "trained")
    folder = trained / "evaluation/trained"
    identity = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps({**identity, "weights": "those of yesterday"}))
    marked = [json.dumps({**episode, "seconds_per_action": -1.0}) for episode in before.values()]
    (folder / "episodes.jsonl").write_text("".join(line + "\n" for line in marked))
    evaluate(trained, "workers=1", "episodes=1")
    again = episodes(trained, "trained")
    assert before and {k: timeless(v) for k, v in again.items()} == {k: timeless(v) for k, v in before.items()}
    assert all(episode["seconds_per_action"] > 0 for episode in again.values())  # played, not kept


def test_offline_table(trained, tiny_data):
    config = compose("evaluate", [f"run={trained}", f"data={tiny_data}"])
    evaluation.run(config)
    table = json.loads((trained / "offline/results.json").read_text())["tasks"]
    assert set(table) == {"open_drawer", "push_buttons", "all"}
    assert table["all"]["translation_cm_median"] > 0 and 0 <= table["all"]["gripper_accuracy"] <= 1


def test_offline_says_on_what_and_warns_of_training_data(trained, tiny_data, capsys):
    words = [f"run={trained}", f"data={tiny_data}", "tasks=push_buttons"]
    evaluation.run(compose("evaluate", [*words, "select=1"]))
    printed = capsys.readouterr().out
    assert "warning: the agent was trained on 1 of these 1 episodes: push_buttons/episode1" in printed
    assert "1 episodes: push_buttons/episode1; n: predictions, one per key-frame and phrasing" in printed
    with pytest.raises(InputError, match="holds results on .*push_buttons/episode1.: give this evaluation another"):
        evaluation.run(compose("evaluate", [*words, "select=0"]))
    evaluation.run(compose("evaluate", [*words, "select=0", "name=other"]))


def test_offline_errors_of_a_perfect_agent_are_zero(tiny_data):
    """The measure itself: an agent that answers with the demonstrated key-frames has no error."""
    from types import SimpleNamespace

    from demos.dataset import KeyframeDataset
    from demos.transitions import Conventions
    from envs.interface import Action

    sight = SimpleNamespace(low=(-0.3, -0.5, 0.6), high=(0.7, 0.5, 1.6), cameras=None, spacing=0.0)
    dataset = KeyframeDataset.open(tiny_data, sight, Conventions(every=None, horizon=10))

    class Perfect:
        def predict(self, samples, instructions):
            return [Action(s.position, s.quaternion, s.gripper_open, s.ignore_collisions) for s in samples], None

    row = evaluate_offline(Perfect(), dataset)["all"]
    assert row["translation_cm_median"] == 0 and row["rotation_deg_p90"] == pytest.approx(0, abs=1e-4)
    assert row["gripper_accuracy"] == row["collision_accuracy"] == 1


def test_other_scenes_get_another_folder_and_a_typo_costs_nothing(trained):
    """Regression: results of one split were silently replaced by those of another, or lost to a typo."""
    for words in (["split=test"], ["split=dev"], ["split=dev", "seed=3"]):
        evaluation.run(compose("evaluate", [f"run={trained}", "episodes=1", "max_actions=1", "workers=1", *words]))
    folders = sorted(p.name for p in (trained / "evaluation").iterdir())
    assert folders == ["trained", "trained_dev_0", "trained_dev_3"]
    with pytest.raises(InputError, match="did you mean test"):
        evaluate(trained, "split=tset")
    assert episodes(trained, "trained")


def test_a_damaged_checkpoint_is_one_line(trained):
    weights = next((trained / "checkpoints").glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match="model.safetensors cannot be read"):
        evaluate(trained, "workers=2")


def test_bad_words_are_one_line(trained, tmp_path):
    with pytest.raises(InputError, match="did you mean trained"):
        evaluate(trained, "policy=traind")
    with pytest.raises(InputError, match="no checkpoint"):
        evaluate(tmp_path / "nowhere")
    with pytest.raises(InputError, match="open_drawer"):
        evaluate(trained, "tasks=open_drawr", "workers=1")
    with pytest.raises(InputError, match="tasks names open_drawer twice"):
        evaluate(trained, "tasks=[open_drawer,open_drawer]")
    with pytest.raises(InputError, match="give their folder too, data="):
        evaluate(trained, "select=1")
    with pytest.raises(InputError, match=r"env.image_size=64: the agent was trained with 16"):
        evaluate(trained, "env.image_size=64")
    with pytest.raises(InputError, match=r"env.cameras=.*: the agent was trained with \['front'\]"):
        evaluate(trained, "env.cameras=[wrist]")
    with pytest.raises(InputError, match="but in .*run: give one of them"):
        evaluation.run(compose("evaluate", [f"run={trained.parent}"]))


def test_demo_runs_through(tmp_path, monkeypatch):
    """Every job of `manifield demo` in a row, as small as can be."""
    from agents import demo
    from agents.report.page import summary_table

    words = ["tasks=[push_buttons]", "demonstrations=1", "episodes=1", "baseline_episodes=1", "steps=2", "workers=1"]
    config = compose(
        "demo",
        [
            *words,
            f"data={tmp_path / 'data'}",
            f"run={tmp_path / 'demo'}",
            f"held={tmp_path / 'held'}",
            "split=dev",
            "held_episodes=1",
            "field_views=2",
        ],
    )
    demo.run(config)
    assert "push_buttons" in summary_table(tmp_path / "demo")
    assert "Views never given" in (tmp_path / "demo" / "report.html").read_text()
    steps = [line.split()[1] for line in (tmp_path / "demo/commands.txt").read_text().splitlines()]
    assert steps == ["collect"] * 2 + ["features"] * 2 + ["train"] + ["evaluate"] * 4 + ["report"]
    assert OmegaConf.load(tmp_path / "demo/config.yaml").steps == 2
    page = (tmp_path / "demo/report.html").read_text()
    assert "push_buttons" in page and "http://" not in page.replace("http://www.w3.org", "")
