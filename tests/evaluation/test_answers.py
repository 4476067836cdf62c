"""Answer files: written as answers come, continued after a crash, never mixed, and scored."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.answers import read_answers, run_generate
from mfpo.evaluation.config import EvalConfig, GenerateConfig, ScoreConfig
from mfpo.evaluation.engines import local
from mfpo.evaluation.provenance import model_fingerprint, provenance_path
from mfpo.evaluation.results import ScoreResult
from mfpo.models import generation
from mfpo.models.load import load_vlm

ANSWER = '{"id": "a", "question": "?", "answer": "Yes.", "image": "", "kind": "exists"}\n'


@pytest.fixture(scope="module")
def config(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> GenerateConfig:
    """Four scenes, answered to the end."""
    config = GenerateConfig(
        model_name_or_path=str(tiny_llava),
        benchmark="scenes",
        output_file=str(tmp_path_factory.mktemp("run") / "answers" / "scenes.jsonl"),
        num_samples=4,
        max_new_tokens=8,
        batch_size=3,
        device="cpu",
    )
    run_generate(config)
    return config


@pytest.fixture
def again(config: GenerateConfig, tmp_path: Path) -> GenerateConfig:
    """The same settings with a copy of the answers."""
    folder = tmp_path / "run" / "answers"
    shutil.copytree(Path(config.output_file).parent, folder)
    return replace(config, output_file=str(folder / "scenes.jsonl"))


def test_every_item_is_answered_once(config: GenerateConfig) -> None:
    predictions = read_answers(config.output_file)
    assert len(predictions) == 12
    assert {prediction.kind for prediction in predictions} == {"describe", "exists"}
    assert all(prediction.question and prediction.image.endswith(".png") for prediction in predictions)


@pytest.mark.parametrize("kept_bytes", [0, 10, 700, -1, -20])
def test_a_file_that_was_cut_off_is_continued(again: GenerateConfig, kept_bytes: int, monkeypatch) -> None:
    path = Path(again.output_file)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept_bytes])
    # A line that lacks only its newline is whole.
    kept = len([line for line in whole[:kept_bytes].split(b"\n") if line.endswith(b"}")])
    asked = []
    generate_batches = generation.generate_batches
    monkeypatch.setattr(
        local,
        "generate_batches",
        lambda *args, **kw: asked.extend(kw["ids"]) or generate_batches(*args, **kw),
    )
    run_generate(again)
    assert len(asked) == 12 - kept
    assert sorted(path.read_text().splitlines()) == sorted(whole.decode().splitlines())


def test_nothing_is_asked_again_when_all_is_answered(again: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setattr(local, "generate_batches", None)
    before = Path(again.output_file).read_bytes()
    run_generate(again)
    assert Path(again.output_file).read_bytes() == before


def test_more_images_can_be_asked_for_later(again: GenerateConfig) -> None:
    run_generate(replace(again, num_samples=5))
    assert len(read_answers(again.output_file)) == 15


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 0.7}, "temperature was 0.0, is 0.7"),
        ({"split": "validation"}, "split"),
        ({"max_new_tokens": 9}, "was 8"),
    ],
)
def test_answers_of_other_settings_do_not_mix(again: GenerateConfig, change: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        run_generate(replace(again, **change))
    run_generate(replace(again, overwrite=True, num_samples=1, **change))
    assert len(read_answers(again.output_file)) == 3


def test_answers_of_other_weights_do_not_mix(again: GenerateConfig, tiny_llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(tiny_llava, folder)
    moved = replace(again, model_name_or_path=str(folder))
    run_generate(moved)
    vlm = load_vlm(str(folder), device="cpu")
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.mul_(1.01)
    vlm.model.save_pretrained(folder)
    with pytest.raises(UserError, match="model was"):
        run_generate(moved)


def test_answers_of_unknown_origin_are_not_continued(again: GenerateConfig) -> None:
    provenance_path(again.output_file).unlink()
    with pytest.raises(UserError, match="nothing says where these answers come from"):
        run_generate(again)


def test_seed_and_top_p_do_not_matter_to_greedy_answers(again: GenerateConfig) -> None:
    run_generate(replace(again, seed=5, top_p=0.5))


def test_dry_run_touches_nothing(config: GenerateConfig, tmp_path: Path, capsys) -> None:
    path = tmp_path / "new" / "scenes.jsonl"
    run_generate(replace(config, output_file=str(path), dry_run=True))
    assert not path.parent.exists()
    assert "12 of 12 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}]
)
def test_settings_out_of_range_are_told_first(config: GenerateConfig, wrong: dict) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        run_generate(replace(config, model_name_or_path="nowhere", **wrong))


def test_a_hub_name_is_known_by_its_revision() -> None:
    assert model_fingerprint("org/model") == "org/model@main"
    assert model_fingerprint("org/model", "v2") == "org/model@v2"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ANSWER + "{oops}\n" + ANSWER, r"answers\.jsonl:2: broken JSON"),
        ('["a", "Yes."]\n', "answers.jsonl:1"),
        ('{"id": "a"}\n', "answer 1: 'answer' is missing"),
        ('{"id": 3, "answer": "Yes."}\n', "answer 1: 'id' is missing or no text"),
        (ANSWER + ANSWER, "'a' is answered twice"),
    ],
)
def test_malformed_lines_are_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=told):
        read_answers(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_answers(tmp_path / "answers.jsonl")


def test_score_writes_a_self_describing_file(again: GenerateConfig, capsys) -> None:
    score.run_score(ScoreConfig(benchmark="scenes", predictions=again.output_file, num_samples=4))
    path = Path(again.output_file).parent.parent / "scores" / "scenes.json"
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(content) == {"metrics", "intervals", "items", "settings"}
    assert len(content["items"]) == 12
    assert content["settings"]["split"] == "test"
    result = ScoreResult.load(path)
    assert list(result.definitions) == list(content["metrics"])
    output = capsys.readouterr().out
    assert "CHAIR_s" in output
    # The terminal has no room for all of them.
    assert "repeats" in content["metrics"] and "│ repeats" not in output
    assert "│ F1 " in output and "they stand in the score file" in output
    assert str(path) in output


def test_unanswered_items_are_told(again: GenerateConfig) -> None:
    with pytest.raises(
        UserError, match=r"3 of 15 items have no answer, the first is 'test-0-000004/describe'"
    ):
        score.run_score(ScoreConfig(benchmark="scenes", predictions=again.output_file, num_samples=5))


def test_eval_is_generate_and_score(config: GenerateConfig, tmp_path: Path) -> None:
    settings = EvalConfig(
        model_name_or_path=config.model_name_or_path,
        benchmark="scenes",
        output_dir=str(tmp_path),
        num_samples=2,
        max_new_tokens=8,
        device="cpu",
    )
    score.run_eval(settings)
    written = ScoreResult.load(tmp_path / "scores" / "scenes.json")
    by_id = {p.id: p.answer for p in read_answers(config.output_file)}
    assert [item["answer"] for item in written.items] == [by_id[item["id"]] for item in written.items]


def test_results_need_a_folder() -> None:
    with pytest.raises(UserError, match="--output_dir"):
        score.output_folder("org/model-on-the-hub", None)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"metrics": {}}', '{"metrics": {}, "items": [], "settings": {}}']
)
def test_files_that_are_no_score_files_are_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scenes.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"scenes\.json"):
        ScoreResult.load(path)


def test_a_missing_answer_file_is_told_before_data_are_fetched(tmp_path: Path) -> None:
    config = ScoreConfig(benchmark="pope", predictions=str(tmp_path / "nothing.jsonl"))
    with pytest.raises(UserError, match=r"nothing\.jsonl: the file cannot be read"):
        score.run_score(config)
