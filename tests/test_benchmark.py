"""The benchmark: what it measures is what it says, in both engines, and its tables are made from its files."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import unimodal
from unimodal.backbone.moe import Experts
from unimodal.benchmark import cases, measuring, quality, run, subject, tables
from unimodal.benchmark.cases import CASES, COMPARISONS, DecodingCase, JobCase, WritingCase
from unimodal_apps.cli import app

SMALLEST = Path(__file__).parent / "models" / "smallest.yaml"


def short(name: str) -> WritingCase:
    """A case of the list, a few tokens long."""
    [case] = [case for case in CASES if case.name == name]
    assert isinstance(case, WritingCase)
    steps = None if case.options.policy == "threshold" else 8
    options = replace(case.options, block_length=8, num_inference_steps=steps)
    return replace(case, prompt=12, prompt_codes=case.prompt_codes and 8, length=20, options=options)


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest model with weights so large that it writes many different tokens."""
    text = SMALLEST.read_text(encoding="utf-8").replace("initializer_range: 0.02", "initializer_range: 0.3")
    path = tmp_path_factory.mktemp("models") / "lively.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def smallest(configuration: str) -> subject.Subject:
    return subject.build_random(configuration, "cpu", "float32", 0, with_pixels=True)


def names_of(kind: type) -> list[str]:
    return [case.name for case in CASES if isinstance(case, kind)]


def test_cases_and_comparisons_fit_together() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    for comparison in COMPARISONS:
        assert {comparison.slow, comparison.fast} <= set(names)
    assert set(cases.ONLY_ON_REQUEST) <= set(cases.tasks())


def test_tasks_are_chosen_by_name() -> None:
    assert {case.task for case in cases.choose(("experts",))} == {"experts"}
    assert {case.task for case in cases.choose((), True)} == {"text", "diffusers"}
    by_default = {case.task for case in cases.choose(())}
    assert by_default == set(cases.tasks()) - set(cases.ONLY_ON_REQUEST)
    with pytest.raises(ValueError, match=r"task: got sing, allowed are understand, generate"):
        cases.choose(("sing",))


@pytest.mark.parametrize("name", names_of(WritingCase))
def test_a_writing_case_writes_its_tokens(name: str, smallest: subject.Subject) -> None:
    case = short(name)
    found = measuring.measure(case, smallest, seed=0)
    assert found.written == len(found.tokens) == 20
    assert smallest.mask_id not in found.tokens
    if case.options.policy == "quota" and case.guidance == "none":
        # 12 prompt tokens end within the second block: 4 + 8 + 8 places are left, one is filled in each step. The other
        # engine looks at the first of these blocks once more when it is full.
        assert found.forwards == (20 if case.engine == "unimodal" else 21)
    if case.writes_codes:
        assert all(smallest.code_ids[0] <= token < smallest.code_ids[1] for token in found.tokens)
    assert set(found.seconds) <= set(measuring.STAGES) and found.total > 0
    assert measuring.measure(case, smallest, seed=0).tokens == found.tokens


@pytest.mark.parametrize("comparison", [one for one in COMPARISONS if one.tokens == "same"], ids=lambda one: one.name)
def test_cases_that_are_compared_write_the_same_tokens(comparison: cases.Comparison, smallest: subject.Subject) -> None:
    slow, fast = (measuring.measure(short(name), smallest, 0) for name in (comparison.slow, comparison.fast))
    assert slow.tokens == fast.tokens
    assert len(set(fast.tokens)) > 5, "a text of one token would agree by chance"


def test_the_expert_path_is_put_back(smallest: subject.Subject) -> None:
    measuring.measure(short("experts in a loop"), smallest, 0)
    paths = {module.path for module in smallest.backbone.modules() if isinstance(module, Experts)}
    assert paths == {"grouped"}


def test_results_are_medians_of_what_was_measured(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 3.0, 1.0, 2.0])  # the first run does not count

    def measured(case: cases.Case, subject: subject.Subject, seed: int) -> measuring.Measurement:
        spent = next(times)
        seconds = {"prefill": spent / 4, "denoise": spent - spent / 4}
        return measuring.Measurement(seconds=seconds, forwards=5, written=10, tokens=[1] * 10)

    monkeypatch.setattr(run, "measure", measured)
    settings = run.Settings(configuration=configuration, device="cpu", repeats=3, threads=1, seed=4)
    results = run.run([short("text at 256")], settings, progress=False)
    [entry] = results["cases"]
    assert entry["seconds"] == {"encode": 0.0, "prefill": 0.5, "denoise": 1.5, "decode": 0.0, "total": 2.0}
    assert entry["repeats"] == [3.0, 1.0, 2.0]
    assert entry["tokens_per_forward"] == 2 and entry["tokens_per_second"] == 5
    assert entry["peak_memory_bytes"] is None or entry["peak_memory_bytes"] > 1e6
    assert results["settings"] == {"seed": 4, "repeats": 3, "threads": 1, "device": "cpu", "dtypes": ["float32"]}
    assert results["machine"]["memory_bytes"] > 0 and results["versions"]["torch"] == version("torch")


def entries(seconds: dict[str, float], dtype: str = "float32") -> list[dict[str, Any]]:
    return [
        {"case": name, "model": "m", "dtype": dtype, "seconds": {"total": value, "denoise": value / 2}}
        for name, value in seconds.items()
    ]


def test_comparisons_divide_slow_by_fast() -> None:
    names = {"text, 256 + 512": 2.0, "text, 256 + 512, diffusers": 30.0, "text at 256": 1.0, "text at 4096": 3.0}
    written = {(name, dtype): [1, 2, 3, 4] for name in names for dtype in ("float32", "bfloat16")}
    written["text, 256 + 512", "bfloat16"] = [1, 2, 3, 5]
    found = run.compare([*entries(names), *entries(names | {"text, 256 + 512": 4.0}, "bfloat16")], written)
    values = {(entry["name"], entry["dtype"]): entry for entry in found}
    assert len(values) == 4
    exact, rounded = values["against.diffusers", "float32"], values["against.diffusers", "bfloat16"]
    assert exact["value"] == 15 and exact["reached"] and exact["token_agreement"] == 1
    assert rounded["value"] == 7.5 and not rounded["reached"] and rounded["token_agreement"] == 0.75
    longer = values["token at 4096 / at 256", "float32"]
    assert longer["value"] == 3 and not longer["reached"], "at most 2"


def test_a_model_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "free_memory", lambda device: 10_000_000_000)
    with pytest.raises(ValueError, match=r"uni_16b take 32\.6 GB in bfloat16, 10\.0 GB are free on cpu"):
        subject.build_random("uni_16b", "cpu", "bfloat16", 0, with_pixels=False)


def test_building_random_weights_leaves_no_trace(configuration: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (
        subject.build_random(configuration, "cpu", "bfloat16", seed, with_pixels=False) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state()) and torch.get_default_dtype() == torch.float32
    assert one.dtype == "bfloat16" and one.backbone.routers()[0].expert_bias.dtype == torch.float32
    weights = [found.backbone.head.weight for found in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_jobs_are_divided_into_their_stages() -> None:
    whole = subject.open_checkpoint("tiny", "cpu", "float32")
    case = JobCase(name="generate", task="generate")
    found = measuring.measure(case, whole, seed=0)
    assert found.pictures == 1 and found.written == 64 and found.forwards > 1
    assert all(found.seconds[stage] > 0 for stage in ("prefill", "denoise", "decode"))
    assert found.seconds["encode"] == 0, "no picture is read"
    assert measuring.why_not(case, whole) is None


def test_cases_that_a_model_cannot_run_say_why(smallest: subject.Subject) -> None:
    assert measuring.why_not(JobCase(name="edit", task="edit"), smallest) == "needs a checkpoint"
    long = WritingCase(name="long", task="text", prompt=2000, length=49)
    assert measuring.why_not(long, smallest) == "needs 2049 positions, the model has 2048"
    assert measuring.why_not(replace(long, length=48), smallest) is None
    pixels = DecodingCase(name="pixels", task="decode", height=2, width=2, steps=1)
    assert measuring.measure(pixels, smallest, 0).pictures == 1
    assert measuring.why_not(pixels, replace(smallest, decoder=None)) == "needs a pixel decoder"


def test_jobs_run_with_presets_and_policies() -> None:
    chosen = cases.choose(("generate", "understand", "policies"), policies=("fast", "cosine"))
    assert [case.name for case in chosen] == [
        *("understand, fast", "understand, cosine", "generate, fast", "generate, cosine"),
        "policy cosine",
    ]
    with pytest.raises(ValueError, match=r"policy: got slow, allowed are fast, balanced, best, quota"):
        cases.choose((), policies=("slow",))


PAGE = Path(unimodal.__file__).parent / "diffusion" / "README.md"


def test_the_table_of_the_page_is_that_of_its_results() -> None:
    results = json.loads((PAGE.parent / "bench.json").read_text(encoding="utf-8"))
    command, end = "<!-- unimodal bench --table unimodal/diffusion/bench.json -->", "<!-- end of table -->"
    shown = PAGE.read_text(encoding="utf-8").partition(command)[2].partition(end)[0]
    assert shown.strip() == tables.markdown(results)


def test_the_plot_of_the_page_shows_five_policies_or_more() -> None:
    found = json.loads((PAGE.parent / "quality.json").read_text(encoding="utf-8"))
    assert len({point["policy"] for point in found["points"]}) >= 5
    assert (PAGE.parent / "quality.png").is_file()


def test_results_side_by_side() -> None:
    entry = {"case": "text", "model": "m", "dtype": "float32", "tokens_sha256": "a", "seconds": {"total": 3.0}}
    machine = {"processor": "p", "load": 0.1}
    results = {
        "machine": machine,
        "versions": {"torch": "1", "diffusers": "2"},
        "settings": {"threads": 1, "seed": 0, "repeats": 3},
        "cases": [entry],
    }
    faster = results | {"cases": [entry | {"tokens_sha256": "b", "seconds": {"total": 1.5}}]}
    lines = tables.difference_lines(results, faster)
    assert lines[-1].split() == ["text", "m", "float32", "3", "1.5", "2", "×", "no"]
    with pytest.raises(ValueError, match="no case in common"):
        tables.difference_lines(results, results | {"cases": []})


def test_quality_counts_the_passes_of_each_sample(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pipe = unimodal.load("tiny", device="cpu")
    before = pipe.settings
    sweep = quality.Sweep(
        label="equal", policy="remasking", option="num_inference_steps", values=(1, 4), tasks=("generate",)
    )
    found = quality.measure_quality(pipe, 2, 0, (sweep,), progress=False)
    assert pipe.settings is before
    few, many = found["points"]
    # 64 codes behind a prompt that ends within a block touch three blocks.
    assert few["forwards"] == 3 and 9 <= many["forwards"] <= 12
    assert 0 <= few["quality"] <= 1
    quality.draw(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_results_and_shows_them(
    configuration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app(["bench", *arguments], prog_name="unimodal")
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    file = str(tmp_path / "bench.json")
    how = ("--task", "context", "--repeats", "1", "--threads", "1", "--device", "cpu")
    code, shown, _ = call("--model", configuration, "--random-weights", *how, "--json", file)
    assert code == 0
    results = json.loads(Path(file).read_text(encoding="utf-8"))
    assert [entry["case"] for entry in results["cases"]] == ["text at 256"]
    assert "skipped text at 4096: lively needs 4160 positions, the model has 2048" in shown
    assert call("--table", file) == (0, tables.markdown(results) + "\n", "")
    assert call("--compare", file, file)[1].splitlines()[-1].split()[-3:] == ["1", "×", "yes"]
    for arguments, words in {
        ("--table", "nothing.json"): "there is no file 'nothing.json'",
        ("--against", "me"): "against: got 'me', allowed is diffusers",
        ("--model", "uni_99b", "--random-weights"): "no models configuration 'uni_99b'",
        ("--quality", "plot.txt"): "quality: got 'plot.txt', the file must end in .json",
    }.items():
        code, _, said = call(*arguments)
        assert code == 2 and words in said and said.count("\n") == 1, said
