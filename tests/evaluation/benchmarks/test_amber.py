"""AMBER against the official script's output, and each of its quirks by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.amber import AmberBenchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.config import ScoreConfig
from mfpo.evaluation.results import ScoreResult

RELATION = {"cat": ["kitten"], "dog": [], "table": ["desk"], "TV": [], "cloud": [], "ship": [], "light": []}
ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["cat", "table"], "hallu": ["dog", "cloud"]},
    {"id": 2, "type": "generative", "truth": ["ship", "ship"], "hallu": ["dog"]},
    {"id": 3, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 4, "type": "discriminative-attribute-state", "truth": "no"},
    {"id": 5, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 6, "type": "relation", "truth": "no"},
]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A small AMBER."""
    folder = tmp_path / "amber"
    (folder / "query").mkdir(parents=True)
    (folder / "annotations.json").write_text(json.dumps(ANNOTATIONS))
    (folder / "relation.json").write_text(json.dumps(RELATION))
    (folder / "safe_words.txt").write_text("light\nsign\n")
    queries = [{"id": a["id"], "image": f"AMBER_{a['id'] % 3}.jpg", "query": "?"} for a in ANNOTATIONS]
    (folder / "query" / "query_all.json").write_text(json.dumps(queries))
    return folder


def scored(data_dir: Path, answers: dict[int, str], **settings: Any) -> ScoreResult:
    path = data_dir / "answers.json"
    path.write_text(json.dumps([{"id": key, "response": text} for key, text in answers.items()]))
    settings.setdefault("similarity", "exact")
    return score.score_answers(AmberBenchmark(BenchmarkSettings(str(data_dir), **settings)), path)


@pytest.mark.parametrize(
    ("similarity", "golden"),
    [
        ("exact", "expected_per_item_exact_sim2.json"),
        ("sim_pairs_glove6B50d_0.8.json", "expected_per_item_glove_sim0.8.json"),
    ],
)
def test_every_field_of_the_golden_files(
    shared: Path, nltk_data: Path, tmp_path: Path, similarity: str, golden: str
) -> None:
    folder = shared / "data" / "golden" / "amber"
    output = tmp_path / "score.json"
    score.run_score(
        ScoreConfig(
            benchmark="amber",
            predictions=str(folder / "gen_responses.json"),
            data_dir=str(shared / "data" / "official" / "amber"),
            similarity=similarity if similarity == "exact" else str(folder / similarity),
            output_file=str(output),
        )
    )
    result = json.loads(output.read_text())
    expected = json.loads((folder / golden).read_text())
    assert len(result["items"]) == len(expected) == 165
    for item, official in zip(result["items"], expected, strict=True):
        assert {name: item[name] for name in official if name != "category"} == {
            name: value for name, value in official.items() if name != "category"
        }
    sums = {name: round(sum(item["counts"][name] for item in expected)) for name in expected[0]["counts"]}
    assert result["metrics"] == {
        "CHAIR": round(sums["chair_score"] / (sums["chair_num"] + 0.001) * 100, 1),
        "Cover": round(sums["safe_cover_score"] / (sums["safe_cover_num"] + 0.001) * 100, 1),
        "Hal": round(100 - sums["non_hallu_score"] / (165 + 0.001) * 100, 1),
        "Cog": round(sums["hallu_cover_score"] / (sums["hallu_cover_num"] + 0.001) * 100, 1),
    }
    assert result["settings"]["official_tools"] is True
    assert result["settings"]["unverified"] == []
    assert result["settings"]["answers"] == {
        "scored": 165,
        "left_out": 0,
        "skipped": 0,
        "unanswered": 15055,
    }
    ScoreResult.load(output)


def test_quirk_case(data_dir: Path) -> None:
    answers = {1: "Cat and Dog. A cat is there."}
    assert scored(data_dir, answers).items[0]["vocab_nouns"] == ["cat"]
    assert scored(data_dir, answers, mode="strict").items[0]["vocab_nouns"] == ["cat", "dog", "cat"]


def test_case_of_the_vocabulary_is_kept_when_strict(data_dir: Path) -> None:
    assert scored(data_dir, {1: "There is a TV."}, mode="strict").items[0]["vocab_nouns"] == ["TV"]


def test_quirk_repeated_truth(data_dir: Path) -> None:
    answers = {2: "There is a ship and another ship."}
    official, strict = scored(data_dir, answers), scored(data_dir, answers, mode="strict")
    assert (official.items[0]["covered_truth"], official.metrics["Cover"]) == ([1, 0], 50.0)
    assert (strict.items[0]["covered_truth"], strict.metrics["Cover"]) == ([1], 100.0)
    assert official.settings["modes"]["strict"]["Cover"] == strict.metrics["Cover"]
    assert strict.settings["modes"]["official"]["Cover"] == official.metrics["Cover"]


def test_quirk_start_0001(data_dir: Path) -> None:
    answers = {1: "There is a cat."}
    assert scored(data_dir, answers).metrics["Hal"] == 0.1
    assert scored(data_dir, answers, mode="strict").metrics["Hal"] == 0.0


def test_quirk_duplicates_count(data_dir: Path) -> None:
    result = scored(data_dir, {1: "There is a ship, a second ship and a cat."})
    assert result.items[0]["hallucinated"] == ["ship", "ship"]
    assert result.items[0]["counts"]["chair_num"] == 3.001


def test_quirk_safe_words_stay_in_the_denominator(data_dir: Path) -> None:
    item = scored(data_dir, {1: "There is a light and a ship."}).items[0]
    assert (item["hallucinated"], item["chair_num"]) == (["ship"], 2)


def test_quirk_an_imagined_object_counts_twice_over(data_dir: Path) -> None:
    """It counts for Cog and, as no synonym of a true object, for CHAIR too."""
    item = scored(data_dir, {1: "There is a dog on the desk."}).items[0]
    assert (item["covered_hallu"], item["covered_truth"], item["hallucinated"]) == ([1, 0], [0, 1], ["dog"])


def test_quirk_the_first_owner_alone_is_covered(data_dir: Path) -> None:
    """A word that stands for two objects covers the one that is annotated first, however often it is said."""
    relation = {**RELATION, "table": ["desk"], "TV": ["desk"]}
    (data_dir / "relation.json").write_text(json.dumps(relation))
    annotations = [{**ANNOTATIONS[0], "truth": ["TV", "table"]}, *ANNOTATIONS[1:]]
    (data_dir / "annotations.json").write_text(json.dumps(annotations))
    item = scored(data_dir, {1: "There is a desk, and a second desk."}).items[0]
    assert (item["covered_truth"], item["hallucinated"]) == ([1, 0], [])


def test_quirk_micro_averages_to_one_decimal(data_dir: Path) -> None:
    """One of three nouns and one of one: 2 / 4, where the mean of the two answers' ratios would be 2 / 3."""
    metrics = scored(data_dir, {1: "There is a cat, a table and a ship.", 2: "There is a cat."}).metrics
    assert metrics["CHAIR"] == round(2 / 4.001 * 100, 1) == 50.0
    assert metrics["Cover"] == round(2 / 4.001 * 100, 1)
    assert metrics["Cog"] == 0.0
    # The strict mode keeps the digits that the script rounds away.
    answers = {1: "There is a cat, a table and a ship."}
    assert scored(data_dir, answers).metrics["CHAIR"] == 33.3
    assert scored(data_dir, answers, mode="strict").metrics["CHAIR"] == pytest.approx(100 / 3)


def test_quirk_ground_truth_by_position(data_dir: Path) -> None:
    """Answer 1 is judged by the first annotation, whatever number that one bears."""
    (data_dir / "annotations.json").write_text(
        json.dumps([{**annotation, "id": 99 - annotation["id"]} for annotation in ANNOTATIONS])
    )
    item = scored(data_dir, {1: "There is a cat."}).items[0]
    assert (item["covered_truth"], item["hallucinated"]) == ([1, 0], [])


def test_quirk_exact_knows_no_synonyms(data_dir: Path) -> None:
    """With ``--similarity_score 2`` not even a word is a synonym of itself; an association still counts."""
    item = scored(data_dir, {1: "There is a dog, a kitten and a ship."}).items[0]
    assert (item["covered_truth"], item["covered_hallu"]) == ([1, 0], [1, 0])
    assert item["hallucinated"] == ["dog", "ship"]


def test_quirk_synonyms_count_for_imagined_and_for_true_objects(data_dir: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    words = [*RELATION, "kitten", "desk"]
    table.write_text(
        json.dumps(
            {"model": "mine", "threshold": 0.8, "vocab": words, "pairs": [["ship", "table"], ["dog", "ship"]]}
        )
    )
    item = scored(data_dir, {1: "There is a ship."}, similarity=str(table)).items[0]
    assert (item["covered_truth"], item["covered_hallu"], item["hallucinated"]) == ([0, 1], [1, 0], [])


def test_what_is_hallucinated_is_marked(data_dir: Path) -> None:
    item = scored(data_dir, {1: 'A "cat" sees two dogs and a ship.'}).items[0]
    assert [item["answer"][start:end] for start, end in item["absent_spans"]] == ["dogs", "ship"]
    assert [item["answer"][start:end] for start, end in item["present_spans"]] == ["cat"]


def test_yes_no_by_hand(data_dir: Path) -> None:
    """No is the positive class: said at 4 (right) and 5 (right), missed at 6."""
    result = scored(data_dir, {3: "Yes", 4: "No", 5: "No", 6: "Yes"})
    assert set(result.metrics) >= {
        "Accuracy",
        "Attribute_F1",
        "State_Recall",
        "Existence_F1",
        "Relation_Accuracy",
    }
    assert "Number_F1" not in result.metrics
    assert any("yes/no" in reason for reason in result.settings["unverified"])
    assert "CHAIR" not in result.metrics
    p, r = round(2 / 2.001 * 100, 1), round(2 / 3.001 * 100, 1)
    assert (result.metrics["Accuracy"], result.metrics["Precision"], result.metrics["Recall"]) == (75.0, p, r)
    assert result.metrics["F1"] == round(2 * p / 100 * r / 100 / (p / 100 + r / 100 + 0.0001) * 100, 1)
    strict = scored(data_dir, {3: "Yes", 4: "No", 5: "No", 6: "Yes"}, mode="strict").metrics
    assert (strict["Precision"], strict["F1"]) == (100.0, pytest.approx(80.0))


def test_quirk_exact_yes_no(data_dir: Path) -> None:
    answers = {4: "No.", 5: "no", 6: "maybe"}
    official, strict = scored(data_dir, answers), scored(data_dir, answers, mode="strict")
    assert (official.metrics["Accuracy"], official.metrics["Unparsed"]) == (0.0, 100.0)
    assert strict.metrics["Accuracy"] == pytest.approx(200 / 3)
    assert strict.metrics["Unparsed"] == pytest.approx(100 / 3)


def test_quirk_rounded_f1() -> None:
    """Five questions, four times "No", all right: P = 4 / 4.001 = 100.0, R = 4 / 5.001 = 80.0."""
    answered = {"qa_correct_num": 1, "qa_correct_score": 1, "qa_no_num": 1}
    said = {"qa_no_score": 1, "qa_ans_no_num": 1, "qa_ans_no_score": 1}
    silent = dict.fromkeys(said, 0)
    counts = [answered | said] * 4 + [answered | silent]
    printed = {
        kind: AmberBenchmark().printed([{"kind": kind, **count} for count in counts])
        for kind in ("existence", "relation")
    }
    assert printed["relation"]["Relation_F1"] == round(1.6 / 1.8001 * 100, 1) == 88.9
    assert printed["existence"]["Existence_F1"] == round(1.6 / 1.801 * 100, 1) == 88.8
    assert printed["existence"]["F1"] == 88.9


def test_quirk_three_denominators_of_the_attribute_table(data_dir: Path) -> None:
    metrics = scored(data_dir, {4: "No", 5: "No"}).metrics
    assert metrics["State_Recall"] == round(1 / 1.001 * 100, 1) == 99.9
    assert metrics["Attribute_Recall"] == round(1 / 1.003 * 100, 1) == 99.7


def test_answers_of_generate_are_read(data_dir: Path) -> None:
    path = data_dir / "answers.jsonl"
    path.write_text('{"id": "4", "question": "?", "answer": "No", "image": "", "kind": "state"}\n')
    benchmark = load_benchmark("amber", BenchmarkSettings(str(data_dir), similarity="exact"))
    assert score.score_answers(benchmark, path).metrics["Recall"] == 99.9


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('[{"id": 7, "response": "No"}]', "no question 7"),
        ('[{"id": 0, "response": "No"}]', "no question 0"),
        ('[{"id": 1, "response": "a"}, {"id": 1, "response": "b"}]', "question 1 is answered twice"),
        ('[{"id": 1, "text": "a"}]', "no text 'response'"),
        ('[{"response": "a"}]', "no number 'id'"),
    ],
)
def test_malformed_answers_are_told(data_dir: Path, rows: str, told: str) -> None:
    path = data_dir / "answers.json"
    path.write_text(rows)
    with pytest.raises(UserError, match=told) as error:
        AmberBenchmark(BenchmarkSettings(str(data_dir))).read_answers(path)
    assert error.value.where == f"{path}:1"


def test_variants_are_halves(data_dir: Path) -> None:
    def kinds(variant: str) -> set[str]:
        return {
            item.kind for item in AmberBenchmark(BenchmarkSettings(str(data_dir), variant=variant)).load()
        }

    assert kinds("generative") == {"generative"}
    assert kinds("discriminative") == {"state", "existence", "relation"}
    with pytest.raises(UserError, match="no answer to a generative question"):
        scored(data_dir, {4: "No"}, variant="generative")
    with pytest.raises(UserError, match="--variant wild"):
        AmberBenchmark(BenchmarkSettings(str(data_dir), variant="wild"))


def test_a_fallback_without_nltk_data_is_labelled(data_dir: Path, no_nltk_data: None, capsys) -> None:
    path = data_dir / "answers.json"
    path.write_text('[{"id": 1, "response": "There is a cat, two dogs and a ship."}]')
    score.run_score(
        ScoreConfig(benchmark="amber", predictions=str(path), data_dir=str(data_dir), similarity="exact")
    )
    printed = capsys.readouterr().out
    assert "UNOFFICIAL" in printed
    assert "nltk.downloader" in printed
    result = ScoreResult.load(data_dir / "answers.scores.json")
    assert result.items[0]["nouns"] == ["cat", "dog", "ship"]
    assert result.settings["official_tools"] is False
    assert result.settings["unverified"] == ["NLTK's data is missing"]


def test_a_table_is_built_and_read_again(data_dir: Path, capsys) -> None:
    table = data_dir / "table.json"
    score.run_score(
        ScoreConfig(
            benchmark="amber", data_dir=str(data_dir), similarity="en_core_web_sm", build_table=str(table)
        )
    )
    content = json.loads(table.read_text())
    assert content["model"].startswith("spacy en_core_web_sm")
    assert set(content["vocab"]) == {*RELATION, "kitten", "desk"}
    assert scored(data_dir, {1: "There is a cat."}, similarity=str(table)).settings["similarity"][
        "pairs"
    ] == len(content["pairs"])
    with pytest.raises(UserError, match="has no table"):
        score.run_score(ScoreConfig(benchmark="scenes", build_table=str(table)))
    with pytest.raises(UserError, match="an answer file is needed"):
        score.run_score(ScoreConfig(benchmark="scenes"))
