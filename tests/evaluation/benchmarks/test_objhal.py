"""Object HalBench against the official script's output, and with an extractor's replies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.objhal import ObjhalBenchmark, extractor_prompt, parse_objects, refine_object
from mfpo.evaluation.mentions.coco import make_rules
from mfpo.evaluation.results import ScoreResult

SYNONYMS = "person, man\ncat, kitten\ndog\nfire hydrant, hydrant\ndining table, table\nchair, seat\ntoilet\n"
REPLY = '```json\n["table", "a black dog", "fire hydrants", "dogs"]\n```'


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A small Object HalBench."""
    (tmp_path / "gt_objects.json").write_text(
        json.dumps({"1": ["cat", "dining table"], "2": ["person"], "3": ["cat"]})
    )
    (tmp_path / "synonyms_refine.txt").write_text(SYNONYMS)
    rows = [{"idx": at, "image_id": at + 1, "question": "Describe."} for at in range(3)]
    (tmp_path / "obj_halbench_300_prompts_noimage.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def scored(
    data_dir: Path, answers: dict[int, str], judgements: str | None = None, mode: str = "official"
) -> ScoreResult:
    path = data_dir / "answers.jsonl"
    rows = [{"image_id": key, "question": "Describe.", "answer": text} for key, text in answers.items()]
    path.write_text("\n".join(map(json.dumps, rows)))
    replies = None
    if judgements is not None:
        replies = data_dir / "replies.jsonl"
        replies.write_text(judgements)
    benchmark = ObjhalBenchmark(BenchmarkSettings(str(data_dir), mode=mode))  # type: ignore[arg-type]
    return score.score_answers(benchmark, path, judgements=replies)


def test_every_field_of_the_golden_file(shared: Path, nltk_data: Path) -> None:
    golden = shared / "data" / "golden" / "objhal"
    benchmark = ObjhalBenchmark(BenchmarkSettings(str(shared / "data" / "official" / "objhalbench")))
    result = score.score_answers(benchmark, golden / "answers.jsonl")
    expected = json.loads((golden / "expected_per_answer_nogpt.json").read_text())
    assert len(result.items) == len(expected) == 110
    for item, official in zip(result.items, expected, strict=True):
        assert {name: item[name] for name in official} == official
    hallucinated = sum(item["metrics"]["CHAIRs"] for item in expected)
    with_objects = sum(bool(item["mscoco_generated_words"]) for item in expected)
    assert result.metrics["CHAIR_s"] == pytest.approx(100 * hallucinated / 110)
    assert result.metrics["CHAIR_s_refine"] == pytest.approx(100 * hallucinated / with_objects)
    assert result.settings["unverified"] == []


def test_the_official_prompts_are_the_questions(shared: Path) -> None:
    items = ObjhalBenchmark(BenchmarkSettings(str(shared / "data" / "official" / "objhalbench"))).load()
    assert len(items) == 300
    assert (items[0].id, items[0].question) == (
        "339761",
        "Provide a thorough description of the given image.",
    )


def test_quirk_two_denominators_of_chair_s(data_dir: Path) -> None:
    result = scored(data_dir, {1: "A dog is here.", 2: "Nothing to see.", 3: "A cat is here."})
    assert result.metrics["CHAIR_s"] == pytest.approx(100 / 3)
    assert result.metrics["CHAIR_s_refine"] == 50.0
    assert "Response Hall" in result.definitions["CHAIR_s_refine"].text


def test_quirk_iphone(data_dir: Path) -> None:
    (data_dir / "synonyms_refine.txt").write_text(SYNONYMS + "cell phone, iPhone\n")
    captions = {1: "She holds an iPhone."}
    assert scored(data_dir, captions).items[0]["mscoco_generated_words"] == []
    strict = scored(data_dir, captions, mode="strict").items[0]
    assert strict["mscoco_generated_words"] == [["iphone", "cell phone"]]


def test_quirk_seat_index(data_dir: Path) -> None:
    captions = {1: "The seat of the toilet by the dog."}
    official, strict = scored(data_dir, captions).items[0], scored(data_dir, captions, mode="strict").items[0]
    assert (
        official["words"]
        == strict["words"]
        == ["the", "seat", "of", "the", "toilet", "by", "the", "dog", "."]
    )
    # Toilet and dog, which stand at 4 and 7.
    assert official["hallucination_idxs"] == [3, 6]
    assert strict["hallucination_idxs"] == [4, 7]


def test_quirk_len_blanks(data_dir: Path) -> None:
    assert scored(data_dir, {1: ""}).metrics["Len"] == 1.0
    assert scored(data_dir, {1: "a  b"}).metrics["Len"] == 3.0
    assert scored(data_dir, {1: "a  b"}, mode="strict").metrics["Len"] == 2.0


def test_the_name_of_the_assistant_is_taken_off(data_dir: Path) -> None:
    assert scored(data_dir, {1: "Assistant: A cat."}).items[0]["caption"] == "A cat."


def test_the_extractor_prompt_is_the_official_one() -> None:
    prompt = extractor_prompt("What is {answer}?", "A cat on a table.")
    assert prompt.startswith(
        "You are an expert in image objects extraction according to a question answer pair."
    )
    # The official script replaces the question first, so braces in it are filled too.
    filled = (
        "<image> What is A cat on a table.?\n\n[End of Question]\n\n[Start of Examiner's Answer]\n\nA cat on"
    )
    assert filled in prompt
    assert prompt.endswith(
        'Present the results in a JSON list format: ["object_1", ..., "object_n"].\n'
        "5. You should return an empty JSON list () if no visible objects can be found.\n"
    )


def test_short_answers_are_not_sent_to_the_extractor(data_dir: Path) -> None:
    benchmark = ObjhalBenchmark(BenchmarkSettings(str(data_dir)))
    path = data_dir / "answers.jsonl"
    path.write_text(
        '{"image_id": 1, "question": "Q", "text": "A cat here."}\n'
        '{"image_id": 2, "question": "Q", "text": "A man is here."}\n'
    )
    predictions = benchmark.read_answers(path)
    requests = benchmark.judge_requests(benchmark.select(predictions, path), {p.id: p for p in predictions})
    assert [(r.key, r.max_tokens, r.temperature) for r in requests] == [("2", 512, 0.2)]
    assert requests[0].payload() == [{"role": "system", "content": extractor_prompt("Q", "A man is here.")}]


def test_extracted_objects_count_once(data_dir: Path) -> None:
    replies = json.dumps({"image_id": 1, "reply": REPLY})
    result = scored(data_dir, {1: "There are tables, a black dog, fire hydrants, dogs."}, replies)
    item = result.items[0]
    assert item["words"] == ["table", "dog", "fire hydrant"]
    assert item["mscoco_hallucinated_words"] == [
        ["dog", ["dog", "dog"]],
        ["fire hydrant", ["fire hydrant", "fire hydrant"]],
    ]
    assert result.metrics["CHAIR_i"] == pytest.approx(100 * 2 / 3)
    assert result.settings["analyser"].startswith("en_core_web_")
    assert "extractor" in result.settings["unverified"][-1]


def test_lists_that_were_read_already_are_taken(data_dir: Path) -> None:
    replies = json.dumps({"image_id": 1, "extract_objs": ["dog", "cat"]})
    assert scored(data_dir, {1: "A dog and a cat."}, replies).metrics["CHAIR_i"] == 50.0


def test_unreadable_replies_are_counted_apart(data_dir: Path) -> None:
    replies = "\n".join(
        json.dumps({"image_id": key, "reply": reply}) for key, reply in ((1, "none"), (2, '["dog"]'))
    )
    result = scored(data_dir, {1: "There is a dog here.", 2: "There is a dog here."}, replies)
    assert result.metrics["Unparsed"] == 50.0
    assert result.metrics["CHAIR_s"] == 100.0
    assert result.items[0]["unparsed"] == 1


def test_missing_replies_are_told(data_dir: Path) -> None:
    replies = json.dumps({"image_id": 1, "reply": REPLY})
    with pytest.raises(UserError, match="reply about 2 is missing"):
        scored(data_dir, {1: "There is a dog here.", 2: "There is a dog here."}, replies)


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ('```json\n["a", "b"]\n```', ["a", "b"], ["a", "b"]),
        ("```json\n[]\n```", [], []),
        ('Here you are:\n["a"]', ["a"], ["a"]),
        ('["a"]\nThat is all.', None, ["a"]),
        ("[]", None, []),
        ("()", None, []),
        ('```json\n{"a": 1}\n```', None, None),
        ("no objects", None, None),
    ],
)
def test_quirk_bare_list(reply: str, official: list[str] | None, strict: list[str] | None) -> None:
    assert parse_objects(reply, strict=False) == official
    assert parse_objects(reply, strict=True) == strict
    benchmark = ObjhalBenchmark(BenchmarkSettings())
    assert benchmark.accepts(reply) == (official is not None)


def test_phrases_become_pairs_or_runs_of_nouns() -> None:
    rules = make_rules([["fire hydrant"]], ["fire hydrant"])

    def doc(*words: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(lemma_=word.split("/")[0], tag_=word.split("/")[1]) for word in words]

    assert refine_object(doc("a/DT", "red/JJ", "fire/NN", "hydrant/NN"), rules) == ["fire hydrant"]
    assert refine_object(doc("a/DT", "coffee/NN", "cup/NN", "on/IN", "table/NNS"), rules) == [
        "coffee cup",
        "table",
    ]
    assert refine_object(doc("a/DT", "red/JJ"), rules) == []
