"""Logs of lmms-eval and VLMEvalKit find their items, and a model of ours answers lmms-eval's requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import Item
from mfpo.evaluation.interop.logs import log_format, read_log, write_log
from mfpo.models.generation import generate
from mfpo.models.load import load_vlm
from mfpo.records import Prediction, user_message

YES_NO = [Item(f"q{n}", f"Is there a {thing} in the image?") for n, thing in enumerate(("cat", "dog", "mug"))]
DESCRIBE = [Item(str(n), "Describe this image.", image=f"AMBER_{n}.jpg") for n in (1, 2, 3)]


def samples(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_lmms_eval_samples_find_their_items_by_question(tmp_path: Path) -> None:
    """The question stands in the prompt of the task, the order is that of another file."""
    path = samples(
        tmp_path / "20261125_samples_pope.jsonl",
        {
            "doc_id": 0,
            "target": "no",
            "filtered_resps": "No",
            "input": "<image>\nIs there a dog in the image?",
        },
        {"doc_id": 1, "target": "yes", "filtered_resps": ["Yes"], "input": "Is there a cat in the image?"},
    )
    assert log_format(path) == "lmms-eval"
    assert {found.id: found.answer for found in read_log(path, YES_NO)} == {"q1": "No", "q0": "Yes"}


def test_equal_questions_go_by_position(tmp_path: Path) -> None:
    ask = "Describe this image."
    path = samples(
        tmp_path / "a.jsonl",
        {"doc_id": 2, "resps": [["Third."]], "input": ask},
        {"doc_id": 0, "resps": [["First."]], "input": ask},
    )
    assert {found.id: found.answer for found in read_log(path, DESCRIBE)} == {"3": "Third.", "1": "First."}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"doc_id": 7, "filtered_resps": "x", "input": "Describe this image."},
            "number 8, the benchmark has 3",
        ),
        ({"doc_id": 1, "filtered_resps": "x", "input": "What is it?"}, "fits no item"),
        ({"doc_id": 1, "filtered_resps": [[0.5, True]], "input": ""}, "needs a number `doc_id` and a text"),
    ],
)
def test_what_fits_no_item_is_refused_with_its_line(tmp_path: Path, record: dict, message: str) -> None:
    good = {"doc_id": 0, "filtered_resps": "ok", "input": "Describe this image."}
    path = samples(tmp_path / "a.jsonl", good, record)
    with pytest.raises(UserError, match=message) as caught:
        read_log(path, DESCRIBE)
    assert str(caught.value.where).endswith("a.jsonl:2")


def test_an_item_answered_twice_is_refused(tmp_path: Path) -> None:
    same = {"doc_id": 0, "filtered_resps": "ok", "input": "Describe this image."}
    with pytest.raises(UserError, match="answered twice"):
        read_log(samples(tmp_path / "a.jsonl", same, same), DESCRIBE)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".json"])
def test_vlmevalkit_tables_round_trip(tmp_path: Path, ending: str) -> None:
    answers = {
        item.id: Prediction(item.id, item.question, f'A "long"\tanswer,\nin two lines: {item.id}')
        for item in DESCRIBE
    }
    path = tmp_path / f"model_AMBER{ending}"
    write_log(path, DESCRIBE, answers, "vlmevalkit")
    found = read_log(path, DESCRIBE, "vlmevalkit")
    assert {one.id: one.answer for one in found} == {item: one.answer for item, one in answers.items()}


@pytest.mark.parametrize("ending", [".jsonl", ".tsv", ".csv", ".json"])
def test_an_item_without_an_answer_shifts_no_other(tmp_path: Path, ending: str) -> None:
    """Where all items share one question, ids and places are all there is to go by."""
    answers = {name: Prediction(name, DESCRIBE[0].question, f"Answer {name}.") for name in ("1", "3")}
    path, kind = tmp_path / f"model_AMBER{ending}", "lmms-eval" if ending == ".jsonl" else "vlmevalkit"
    write_log(path, DESCRIBE, answers, kind)
    found = read_log(path, DESCRIBE, kind)
    assert {one.id: one.answer for one in found} == {"1": "Answer 1.", "3": "Answer 3."}
    if ending == ".jsonl":
        assert [json.loads(line)["doc_id"] for line in path.read_text().splitlines()] == [0, 2]


def test_an_id_of_another_program_is_not_taken_for_ours(tmp_path: Path) -> None:
    record = {"doc_id": 0, "filtered_resps": "No", "input": "Is there a dog in the image?", "id": "q0"}
    assert [one.id for one in read_log(samples(tmp_path / "a.jsonl", record), YES_NO)] == ["q1"]


def test_ids_that_look_like_ours_are_not_used_for_some(tmp_path: Path) -> None:
    """AMBER's ids are numbers from 1, and its descriptions share one question."""
    ask = "Describe this image."
    records = ({"doc_id": n, "filtered_resps": f"Answer {n}.", "input": ask, "id": n} for n in range(3))
    found = read_log(samples(tmp_path / "a.jsonl", *records), DESCRIBE)
    assert {one.id: one.answer for one in found} == {"1": "Answer 0.", "2": "Answer 1.", "3": "Answer 2."}


def test_more_scenes_than_usual_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    from mfpo.evaluation.benchmarks import load_benchmark, scenes
    from mfpo.evaluation.benchmarks.base import BenchmarkSettings

    monkeypatch.setattr(scenes, "NUM_SCENES", 3)
    many = load_benchmark("scenes", BenchmarkSettings(num_samples=5))
    few = load_benchmark("scenes", BenchmarkSettings(num_samples=2))
    ids = [item.id for item in many.load()]
    assert [item.id for item in many.unlimited().load()] == ids
    assert [item.id for item in few.unlimited().load()] == ids[: len(ids) * 3 // 5]


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_a_table_is_cut_at_line_ends_only(tmp_path: Path, ending: str) -> None:
    """Writers of tables quote no separator of lines or paragraphs."""
    answers = {
        item.id: Prediction(item.id, item.question, f"A mug.\u2028A cat.\x85A dog.\x0cThe end: {item.id}")
        for item in DESCRIBE
    }
    path = tmp_path / f"model_AMBER{ending}"
    write_log(path, DESCRIBE, answers, "vlmevalkit")
    found = read_log(path, DESCRIBE, "vlmevalkit")
    assert {one.id: one.answer for one in found} == {item: one.answer for item, one in answers.items()}


def test_vlmevalkit_excel(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl", reason="Excel files need openpyxl")
    frame = pd.DataFrame(
        {"index": [1, 2], "question": [q.question for q in YES_NO[:2]], "prediction": ["Yes", None]}
    )
    frame.to_excel(tmp_path / "llava_POPE.xlsx", index=False)
    assert log_format(tmp_path / "llava_POPE.xlsx") == "vlmevalkit"
    found = read_log(tmp_path / "llava_POPE.xlsx", YES_NO)
    assert [(one.id, one.answer) for one in found] == [("q0", "Yes"), ("q1", "")]


def test_lmms_eval_round_trip(tmp_path: Path) -> None:
    answers = {item.id: Prediction(item.id, item.question, f"Answer {item.id}") for item in YES_NO}
    write_log(tmp_path / "x.jsonl", YES_NO, answers, "lmms-eval")
    assert [one.answer for one in read_log(tmp_path / "x.jsonl", YES_NO)] == [
        "Answer q0",
        "Answer q1",
        "Answer q2",
    ]


def test_files_of_ours_are_no_logs(tmp_path: Path) -> None:
    ours = samples(tmp_path / "answers.jsonl", Prediction("q0", "Is it?", "Yes").to_dict())
    assert log_format(ours) is None
    (tmp_path / "bad.jsonl").write_text("{")
    assert log_format(tmp_path / "bad.jsonl") is None
    with pytest.raises(UserError, match="no log"):
        read_log(ours, YES_NO)


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """lmms-eval itself where it is installed, else its two classes that a model is built on."""
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.api.instance"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))

        class Base:
            rank = 0

            def __init__(self) -> None:
                self.task_dict: dict = {}

        sys.modules["lmms_eval.api.model"].lmms = Base  # type: ignore[attr-defined]
        sys.modules["lmms_eval.api.instance"].Instance = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "mfpo.evaluation.interop.lmms_eval_model", raising=False)


def request(number: int, question: str, pictures: int = 1, **settings: object) -> SimpleNamespace:
    def to_visual(doc: dict) -> list:
        return [doc["image"]] * pictures

    return SimpleNamespace(args=(question, settings, to_visual, number, "pope", "test"))


@pytest.mark.usefixtures("lmms_eval")
def test_lmms_eval_model_answers_as_generate_does(tiny_llava: Path) -> None:
    from mfpo.evaluation.interop.lmms_eval_model import MfpoModel

    model = MfpoModel(str(tiny_llava), batch_size=2, device="cpu")
    pictures = [Image.new("RGB", (40, 40), (60 * n, 10, 200)) for n in range(4)]
    model.task_dict = {"pope": {"test": [{"image": picture} for picture in pictures]}}
    lengths = (4, 4, 6, 4)
    requests = [
        request(
            number,
            f"<image>\nIs there a mug? {number}",
            max_new_tokens=length,
            do_sample=False,
            temperature=0,
        )
        for number, length in enumerate(lengths)
    ]
    vlm = load_vlm(str(tiny_llava), device="cpu")
    expected = [
        generate(vlm, [pictures[n]], [user_message(f"Is there a mug? {n}")], max_new_tokens=length)[0]
        for n, length in enumerate(lengths)
    ]
    assert model.generate_until(requests) == expected
    stop = expected[0][2:4]
    cut = request(0, "<image>\nIs there a mug? 0", max_new_tokens=4, until=[stop])
    assert model.generate_until([cut]) == [expected[0].split(stop)[0]]
    with pytest.raises(NotImplementedError, match="2 pictures"):
        model.generate_until([request(0, "What?", pictures=2, max_new_tokens=2)])


def test_score_reads_logs_and_writes_them(tmp_path: Path) -> None:
    from mfpo.evaluation.benchmarks import load_benchmark
    from mfpo.evaluation.benchmarks.base import BenchmarkSettings
    from mfpo.evaluation.config import ScoreConfig
    from mfpo.evaluation.score import run_score

    items = load_benchmark("scenes", BenchmarkSettings(num_samples=2)).load()
    path = samples(
        tmp_path / "x_samples_scenes.jsonl",
        *({"doc_id": n, "filtered_resps": "A mug.", "input": item.question} for n, item in enumerate(items)),
    )
    score = tmp_path / "score.json"
    run_score(
        ScoreConfig(
            benchmark="scenes",
            predictions=str(path),
            num_samples=2,
            output_file=str(score),
            export_file=str(tmp_path / "again.tsv"),
        )
    )
    scored = json.loads(score.read_text())["items"]
    assert [item["id"] for item in scored] == [item.id for item in items]
    again = read_log(tmp_path / "again.tsv", items)
    assert [one.answer for one in again] == ["A mug."] * len(items)
