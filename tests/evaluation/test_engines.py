"""Engines: what each is asked and gives back, broken pictures, and runs that are cut off."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import toy_benchmark
from chat_server import ChatBackend, chat_server
from mfpo.errors import UserError
from mfpo.evaluation import answers, score
from mfpo.evaluation.answers import read_answers, run_generate, skips_path
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.config import GenerateConfig
from mfpo.evaluation.engines.server import data_uri
from mfpo.evaluation.provenance import model_fingerprint, provenance_path
from mfpo.evaluation.servers import chat
from mfpo.models import generation

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(toy_benchmark.benchmarks.BENCHMARKS, "toy", "toy_benchmark:ToyBenchmark")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(chat, "_FIRST_PAUSE", 0.002)


@pytest.fixture
def backend() -> Iterator[ChatBackend]:
    with chat_server() as backend:
        yield backend


@pytest.fixture
def local(tiny_llava: Path, tmp_path: Path) -> GenerateConfig:
    return GenerateConfig(
        model_name_or_path=str(tiny_llava),
        benchmark="toy",
        output_file=str(tmp_path / "answers" / "toy.jsonl"),
        num_samples=12,
        batch_size=5,
        device="cpu",
    )


@pytest.fixture
def remote(backend: ChatBackend, tmp_path: Path) -> GenerateConfig:
    return GenerateConfig(
        model_name_or_path="gpt-toy",
        engine="openai",
        base_url=backend.url,
        benchmark="toy",
        output_file=str(tmp_path / "answers" / "toy.jsonl"),
    )


def answers_of(config: GenerateConfig) -> dict[str, str]:
    return {answer.id: answer.answer for answer in read_answers(config.output_file)}


def test_progress_counts_what_is_left_and_tells_the_time_left(
    local: GenerateConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    run_generate(replace(local, num_samples=7))
    shown = capfd.readouterr().err
    assert "answering toy" in shown and "7/7" in shown
    # [time passed<time left, speed]
    assert re.search(r"7/7 \[\d\d:\d\d<\d\d:\d\d, .*answer", shown)
    run_generate(local)
    assert "5/5" in capfd.readouterr().err


def test_batches_are_of_like_length_and_padded_at_the_left(local: GenerateConfig, monkeypatch) -> None:
    masks, plain_decoding = [], generation.plain_decoding

    def keep(vlm, batch, before=()):
        masks.append(batch.inputs["attention_mask"].numpy())
        return plain_decoding(vlm, batch, before)

    monkeypatch.setattr(generation, "plain_decoding", keep)
    run_generate(local)
    assert [len(mask) for mask in masks] == [5, 5, 2]
    lengths = [mask.sum(1) for mask in masks]
    assert any(len(set(row)) > 1 for row in lengths)
    # Each ends at its last token; the longest come first, and no batch is wider than its longest question.
    assert all((np.diff(mask, axis=1) >= 0).all() and mask[:, -1].all() for mask in masks)
    assert [mask.shape[1] for mask in masks] == [row.max() for row in lengths]
    assert (np.diff(np.concatenate(lengths)) <= 0).all()


@pytest.mark.parametrize("broken", [{"03", "07"}, {f"{n:02d}" for n in range(12)}])
def test_broken_pictures_are_counted_and_the_rest_is_answered(
    local: GenerateConfig, broken: set[str], monkeypatch, capsys
) -> None:
    whole = replace(local, output_file=f"{local.output_file}.whole.jsonl")
    run_generate(whole)
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "broken", broken)
    path = run_generate(local)
    assert answers_of(local) == {n: a for n, a in answers_of(whole).items() if n not in broken}
    skips = [json.loads(line) for line in skips_path(path).read_text().splitlines()]
    assert {(skip["where"], skip["reason"]) for skip in skips} == {(n, "truncated-image") for n in broken}
    assert f"{len(broken)} items have no answer" in capsys.readouterr().out
    # A run on fewer items says nothing of the others.
    if len(broken) < 12:
        run_generate(replace(local, num_samples=5))
        assert {json.loads(line)["where"] for line in skips_path(path).read_text().splitlines()} == broken
    # Pictures that have been put right are answered by the same command.
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "broken", set())
    run_generate(local)
    assert answers_of(local) == answers_of(whole)
    assert not skips_path(path).exists()


def test_scores_leave_out_items_with_broken_pictures_and_say_so(local: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "broken", {"03"})
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "judge", None)
    path = run_generate(local)
    benchmark = toy_benchmark.ToyBenchmark(BenchmarkSettings(num_samples=12))
    result = score.score_answers(benchmark, path)
    assert len(result.items) == 11
    assert [skip["where"] for skip in result.settings["skipped"]] == ["03"]
    more = toy_benchmark.ToyBenchmark(BenchmarkSettings(num_samples=13))
    with pytest.raises(UserError, match="1 of 12 items have no answer, the first is '12'"):
        score.score_answers(more, path)


def test_another_processor_or_prompt_does_not_mix(
    local: GenerateConfig, tiny_llava, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llava, folder)
    local = replace(local, model_name_or_path=str(folder), num_samples=2)
    run_generate(local)
    run_generate(local)
    template = next(folder.glob("chat_template*"))
    before = template.read_text()
    template.write_text(before.replace("USER", "HUMAN"))
    with pytest.raises(UserError, match="processor was"):
        run_generate(local)
    template.write_text(before)
    load = toy_benchmark.ToyBenchmark.load
    monkeypatch.setattr(
        toy_benchmark.ToyBenchmark,
        "load",
        lambda self: [replace(item, question="Who is it?") for item in load(self)],
    )
    with pytest.raises(UserError, match=r"asked 'What is it\?', the benchmark asks 'Who is it\?'"):
        run_generate(local)


def test_decodings_give_answers_of_their_own_and_do_not_mix(local: GenerateConfig) -> None:
    local = replace(local, num_samples=3)
    found = {}
    for decoding, options in (("greedy", {}), ("vcd", {"alpha": 5.0}), ("opera", {"num_beams": 2})):
        config = replace(
            local,
            decoding=decoding,
            decoding_options=options,
            output_file=f"{local.output_file}.{decoding}.jsonl",
        )
        run_generate(config)
        found[decoding] = tuple(answers_of(config).values())
        assert len(found[decoding]) == 3
        with pytest.raises(UserError, match="decoding"):
            run_generate(replace(local, output_file=config.output_file, decoding_options={}, decoding={
                "greedy": "vcd", "vcd": "opera", "opera": "greedy"}[decoding]))  # fmt: skip
    assert len(set(found.values())) == 3
    vcd = replace(local, decoding="vcd", output_file=f"{local.output_file}.vcd.jsonl")
    with pytest.raises(UserError, match=r"'alpha': 5\.0"):
        run_generate(vcd)
    # The noise has a seed, greedy or not.
    with pytest.raises(UserError, match="seed was 0, is 1"):
        run_generate(replace(vcd, decoding_options={"alpha": 5}, seed=1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"engine": "vllm", "decoding": "vcd"}, "only the local engine"),
        ({"decoding": "opera", "temperature": 1.0}, "does not sample"),
        ({"decoding": "vcd", "decoding_options": {"gamma": 1}}, "no such option"),
        ({"concurrency": 0}, "--concurrency"),
    ],
)
def test_settings_that_do_not_fit_are_told_first(local: GenerateConfig, change: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        run_generate(replace(local, model_name_or_path="nowhere", **change))


def test_an_adapters_scale_is_part_of_the_model(
    tiny_llava: Path, local: GenerateConfig, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from mfpo.models.load import load_vlm

    vlm = load_vlm(str(tiny_llava), device="cpu")
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=400, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(vlm.model, config).save_pretrained(tmp_path / "adapter")
    run_generate(replace(local, num_samples=3))
    adapted = replace(
        local,
        num_samples=3,
        model_name_or_path=str(tmp_path / "adapter"),
        output_file=str(tmp_path / "a.jsonl"),
    )
    run_generate(adapted)
    assert answers_of(adapted) != answers_of(local)
    before = model_fingerprint(str(tmp_path / "adapter"))
    saved = tmp_path / "adapter" / "adapter_config.json"
    saved.write_text(saved.read_text().replace("400", "8"))
    assert model_fingerprint(str(tmp_path / "adapter")) != before


def test_a_server_gets_the_picture_and_the_settings(backend: ChatBackend, remote: GenerateConfig) -> None:
    run_generate(replace(remote, temperature=0.5, top_p=0.9, seed=3))
    assert len(backend.requests) == toy_benchmark.NUM_ITEMS
    request = next(r for r in backend.requests if r["messages"][0]["content"][1]["text"] == "What is it?")
    assert (request["model"], request["max_tokens"], request["temperature"], request["top_p"]) == (
        "gpt-toy",
        8,
        0.5,
        0.9,
    )
    assert 0 <= request["seed"] < 2**31
    head, _, data = request["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    benchmark = toy_benchmark.ToyBenchmark()
    assert any(np.array_equal(shown, np.asarray(benchmark.open_image(i))) for i in benchmark.load()[::5])
    assert answers_of(remote)["00"] == "reply to What is it?"
    beside = provenance_path(remote.output_file).read_text()
    assert "gpt-toy-2024" in beside and backend.url in beside and SECRET not in beside
    # Greedy answers come without what only matters to samples.
    run_generate(replace(remote, overwrite=True, num_samples=1))
    assert backend.requests[-1]["temperature"] == 0
    assert not {"seed", "top_p"} & backend.requests[-1].keys()


def test_who_answered_is_known_however_the_run_ends(
    backend: ChatBackend, remote: GenerateConfig, monkeypatch
) -> None:
    append, calls = answers.append_jsonl, []

    def interrupted(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(*args)

    monkeypatch.setattr(answers, "append_jsonl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_generate(remote)
    assert answers_of(remote) and "gpt-toy-2024" in provenance_path(remote.output_file).read_text()


def test_several_processes_do_not_each_start_vllm(local: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="vLLM starts its processes itself"):
        run_generate(replace(local, engine="vllm"))


def test_answer_files_have_settings_and_skips_of_their_own() -> None:
    for path in (provenance_path, skips_path):
        assert path("run/amber.llava-1.5") != path("run/amber.llava-1.6")
    assert provenance_path("run/amber.jsonl") == Path("run/amber.yaml")
    assert skips_path("run/amber.jsonl") == Path("run/amber.skipped.jsonl")


def test_faults_of_a_server_pass_and_failures_are_asked_again(
    backend: ChatBackend, remote: GenerateConfig
) -> None:
    # Questions recur among the items; all tries of the longest one fail.
    longest = max((item.question for item in toy_benchmark.ToyBenchmark().load()), key=len)
    backend.fault = lambda text, attempt: (
        "400 too long" if text == longest else ("500" if attempt == 0 else None)
    )
    with pytest.raises(UserError, match=r"8 requests failed, the first.*too long"):
        run_generate(remote)
    assert len(answers_of(remote)) == 32
    backend.fault = lambda text, attempt: None
    backend.requests.clear()
    run_generate(remote)
    assert backend.texts() == [longest] * 8
    assert len(answers_of(remote)) == 40


def test_a_server_that_refuses_everything_ends_the_run(backend: ChatBackend, remote: GenerateConfig) -> None:
    backend.fault = lambda text, attempt: "400 no pictures, please"
    with pytest.raises(UserError, match="no pictures, please"):
        run_generate(remote)
    assert len(backend.requests) < 40
    assert not answers_of(remote)


def test_other_servers_and_broken_pictures(backend: ChatBackend, remote: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "broken", {"05"})
    run_generate(remote)
    assert len(answers_of(remote)) == 39
    with pytest.raises(UserError, match="base_url was"):
        run_generate(replace(remote, base_url="http://localhost:1/v1"))


def test_a_key_in_the_address_reaches_no_file(remote: GenerateConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would end up in files"):
        run_generate(replace(remote, base_url=f"http://me:{SECRET}@127.0.0.1:1/v1"))
    assert not Path(remote.output_file).parent.exists()


def test_large_pictures_are_sent_as_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), dtype=np.uint8)
    assert data_uri(Image.fromarray(noise)).startswith("data:image/jpeg;base64,")


class FakeVllm(types.ModuleType):
    """Remembers what it is given; vLLM itself needs a GPU."""

    def __init__(self) -> None:
        super().__init__("vllm")
        self.made: dict[str, Any] = {}
        self.calls: list[tuple[list[dict[str, Any]], list[Any], Any]] = []
        self.SamplingParams = lambda **given: given
        self.LLM = self._llm

    def _llm(self, **given: Any) -> FakeVllm:
        self.made = given
        return self

    def generate(self, prompts: list, parameters: list, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
        self.calls.append((prompts, parameters, lora_request))
        texts = [types.SimpleNamespace(text=f" answer {len(p['prompt_token_ids'])} ") for p in prompts]
        return [types.SimpleNamespace(outputs=[text]) for text in texts]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    fake, lora, request = FakeVllm(), types.ModuleType("vllm.lora"), types.ModuleType("vllm.lora.request")
    request.LoRARequest = lambda *given: given  # type: ignore[attr-defined]
    for module in (fake, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


def test_vllm_is_given_model_prompts_and_settings(vllm: FakeVllm, local: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setattr(toy_benchmark.ToyBenchmark, "broken", {"04"})
    run_generate(replace(local, engine="vllm", temperature=0.7, top_p=0.9))
    assert vllm.made["model"] == local.model_name_or_path
    assert vllm.made["limit_mm_per_prompt"] == {"image": 1}
    assert vllm.made["generation_config"] == "vllm"
    ((prompts, parameters, adapter),) = vllm.calls
    assert len(prompts) == 11 and adapter is None
    assert all(isinstance(prompt["multi_modal_data"]["image"], Image.Image) for prompt in prompts)
    assert {(p["max_tokens"], p["temperature"], p["top_p"]) for p in parameters} == {(8, 0.7, 0.9)}
    assert len({p["seed"] for p in parameters}) == 11
    from mfpo.models.load import load_processor

    tokenizer = load_processor(local.model_name_or_path).tokenizer
    tokens = prompts[0]["prompt_token_ids"]
    assert tokens.count(tokenizer.bos_token_id) == 1
    assert tokenizer.image_token_id in tokens
    assert answers_of(local)["00"] == f"answer {len(tokens)}"


def test_vllm_is_given_the_adapter(vllm: FakeVllm, local: GenerateConfig, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"base_model_name_or_path": local.model_name_or_path, "r": 12}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    run_generate(replace(local, engine="vllm", model_name_or_path=str(adapter)))
    assert vllm.made["model"] == local.model_name_or_path
    assert (vllm.made["enable_lora"], vllm.made["max_lora_rank"]) == (True, 16)
    assert vllm.calls[0][2] == ("adapter", 1, str(adapter))
    assert vllm.calls[0][1][0]["seed"] is None


def test_vllm_that_is_not_there_is_told(local: GenerateConfig, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="pip install vllm"):
        run_generate(replace(local, engine="vllm"))


def command_of(config: GenerateConfig) -> list[str]:
    given = ["--benchmark", "toy", "--output_file", config.output_file, "--engine", config.engine]
    given += ["--model_name_or_path", config.model_name_or_path, "--device", "cpu", "--batch_size", "2"]
    if config.base_url:
        given += ["--base_url", config.base_url, "--concurrency", "2"]
    return [toy_benchmark.__file__, "generate", *given]


def killed_after(lines: int, command: list[str], path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE)
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_while_generating_and_continued(local: GenerateConfig, tmp_path: Path) -> None:
    log = tmp_path / "opened.txt"
    environment = {**os.environ, "TOY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    path = Path(local.output_file)
    killed_after(6, command_of(local), path, environment)
    # As if it had been killed in the middle of a line.
    with path.open("ab") as file:
        file.write(b'{"id": "39", "question": "What')
    kept = set(answers_of(local))
    assert 6 <= len(kept) < 40
    log.write_text("")
    subprocess.run([sys.executable, *command_of(local)], env=environment, check=True, capture_output=True)
    whole = replace(local, output_file=str(tmp_path / "whole.jsonl"), num_samples=None)
    run_generate(whole)
    assert answers_of(local) == answers_of(whole)
    assert len(path.read_text().splitlines()) == 40
    opened = log.read_text().split()
    assert len(opened) == len(set(opened)) == 40 - len(kept)
    assert not kept & set(opened)


def test_killed_while_a_server_answers_and_continued(backend: ChatBackend, remote: GenerateConfig) -> None:
    backend.delay = 0.03
    path = Path(remote.output_file)
    killed_after(8, command_of(remote), path, dict(os.environ))
    kept = len(answers_of(remote))
    asked = len(backend.requests)
    # Under way were two requests; their answers, and one that came but was not yet written, are lost.
    assert 8 <= kept <= asked <= kept + 5 < 40
    subprocess.run([sys.executable, *command_of(remote)], env=os.environ, check=True, capture_output=True)
    assert len(answers_of(remote)) == 40
    assert len(backend.requests) - asked == 40 - kept
    assert Counter(answers_of(remote).values()) == Counter(
        f"reply to {item.question}" for item in toy_benchmark.ToyBenchmark().load()
    )


@pytest.mark.slow
def test_two_processes_share_the_questions(local: GenerateConfig, tmp_path: Path) -> None:
    log = tmp_path / "opened.txt"
    environment = {**os.environ, "TOY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    # What one of them had written before all were killed is kept.
    whole = replace(local, output_file=str(tmp_path / "whole.jsonl"), num_samples=None)
    run_generate(whole)
    path = Path(local.output_file)
    path.parent.mkdir()
    shutil.copy(provenance_path(whole.output_file), provenance_path(path))
    lines = Path(whole.output_file).read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    path.with_name(f"{path.name}.part1").write_text("".join(lines[2:5]) + '{"id": "39", "ques')
    done = subprocess.run(
        [sys.executable, *launch, *command_of(local)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert answers_of(local) == answers_of(whole)
    opened = log.read_text().split()
    assert len(opened) == len(set(opened)) == 35
    assert sorted(file.name for file in path.parent.iterdir()) == ["toy.jsonl", "toy.yaml"]
