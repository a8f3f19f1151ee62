# SPDX-License-Identifier: Apache-2.0
"""lm-eval through our model, and the suites that run through it, end to end on small local datasets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import harness_data
import lm_eval
import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import pennyweight
from pennyweight.checkpoint.tokenizer import load_tokenizer
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import openllm_v1, openllm_v2, ruler
from pennyweight.evaluate.harness import choose
from pennyweight.evaluate.language_models import PennyweightLM
from pennyweight.evaluate.results import Store
from pennyweight.evaluate.suites import SUITES, Job, Options, SuiteResult
from pennyweight.evaluate.targets import open_target

pytestmark = pytest.mark.filterwarnings("default")  # lm-eval's and its libraries' own
DEMO = Path(__file__).parents[2] / "demo" / "model"
CONTEXTS = ("The old mill stood by", "Once", "In winter the water froze, and nobody")
ENDS = (" the river.", " upon a time there was a king", " had flour.")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Return one random layer with the demo's tokenizer: what it says does not matter here."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All datasets."""
    path = tmp_path_factory.mktemp("datasets")
    for make in (harness_data.make_v1, harness_data.make_v2, harness_data.make_ruler):
        make(path)
    return path


@pytest.fixture
def run(model: torch.nn.Module, root: Path) -> Callable[..., SuiteResult]:
    """Run a suite on the tiny model."""

    def call(suite: ModuleType, store: Store | None = None, **options: Any) -> SuiteResult:
        target = open_target(model, tokenizer=load_tokenizer(DEMO), name="tiny")
        chosen = Options(**{"datasets": root, "limit": 1, "max_new_tokens": 1, **options})
        result: SuiteResult = suite.run(Job(target, None, chosen, store or Store(), lambda done, of: None))
        json.dumps(result.metrics), json.dumps(result.items)
        return result

    return call


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, i, ("task", i, 1)) for i, args in enumerate(arguments)]


def test_our_model_is_lm_eval_s_own_backend_in_float32() -> None:
    theirs = HFLM(pretrained=str(DEMO), dtype="float32", device="cpu", batch_size=2)
    ours = PennyweightLM(pretrained=str(DEMO), dtype="float32", batch_size=2)
    pairs = list(zip(CONTEXTS, ENDS, strict=True))
    for a, b in zip(
        ours.loglikelihood(requests("loglikelihood", pairs)),
        theirs.loglikelihood(requests("loglikelihood", pairs)),
        strict=True,
    ):
        assert abs(a[0] - b[0]) <= 1e-4 and a[1] == b[1]
    texts = [(harness_data.TEXT * 3,), ("The river.",)]
    for a, b in zip(
        ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts)),
        theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts)),
        strict=True,
    ):
        assert abs(a - b) <= 1e-4
    asked = [(context, {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}) for context in CONTEXTS]
    assert ours.generate_until(requests("generate_until", asked)) == theirs.generate_until(
        requests("generate_until", asked)
    )


def test_openllm_v1_runs_all_columns(run: Callable[..., SuiteResult]) -> None:
    store = Store()
    found = run(openllm_v1, store)
    assert set(found.tasks) == {column.key for column in openllm_v1.COLUMNS}
    assert found.metrics["average"] == pytest.approx(sum(found.tasks.values()) / 7)
    assert len(found.items) == 2 * 57 + 5 and not found.partial
    for column in ("winogrande", "truthfulqa", "hellaswag"):  # lm-eval's own aggregate of the same task
        task = {"truthfulqa": "truthfulqa_mc2"}.get(column, column)
        metric = "acc_norm,none" if column == "hellaswag" else "acc,none"
        assert found.tasks[column] == pytest.approx(100 * found.metrics["lm_eval"][task][metric])
    assert len(store.items()) == 2 * 57 + 5
    assert run(openllm_v1, store).items == found.items  # nothing is asked again


def test_openllm_v2_runs_all_columns(run: Callable[..., SuiteResult]) -> None:
    found = run(openllm_v2)
    assert set(found.tasks) == {column.key for column in openllm_v2.COLUMNS}
    assert found.metrics["average"] == pytest.approx(sum(found.tasks.values()) / 6)
    hits = [item for item in found.items if item["task"] == "bbh/bbh_navigate"]
    assert [item["score"] for item in hits] == [1.0 if item["correct"] else -1.0 for item in hits]
    prompts = [item["correct"] for item in found.items if item["task"] == "ifeval/prompts"]
    followed = [item["score"] for item in found.items if item["task"] == "ifeval/instructions"]
    shares = [sum(one) / len(one) for one in (prompts, followed)]
    assert found.tasks["ifeval"] == pytest.approx(100 * sum(shares) / 2)


def test_guessing_gets_one_in_as_many_answers_as_lm_eval_s_subtasks_offer() -> None:
    folder = Path(lm_eval.__file__).parent / "tasks" / "leaderboard" / "bbh_mc"
    offered = {}
    for file in folder.glob("[a-z]*.yaml"):
        (line,) = re.findall(r"(?ms)^doc_to_choice:\s*(\[.*?\])", file.read_text())
        offered[f"bbh_{file.stem}"] = len(re.findall(r'"[^"]*"', line))
    assert len(offered) == 24
    others = {
        "mmlu_pro": 10,
        "gpqa_main": 4,
        "gpqa_diamond": 4,
        "gpqa_extended": 4,
    }  # the paper's group: 0.1, 0.25
    others |= {
        "musr_murder_mysteries": 2,
        "musr_object_placements": 5,
        "musr_team_allocation": 3,
    }  # 0.5, 0.2, 1/3
    assert offered | others == openllm_v2.CHOICES


def test_ruler_runs_all_tasks(run: Callable[..., SuiteResult]) -> None:
    found = run(ruler, context_lengths=(2048,))
    assert set(found.tasks) == {"2048"} and len(found.items) == 13
    assert found.metrics["ruler"] == found.metrics["average"] == found.tasks["2048"]


@pytest.mark.parametrize("name", ruler.NEEDLES)
def test_needles_are_lm_eval_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks.ruler import niah_utils as theirs

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        theirs, "generate_samples", lambda haystack, **kind: calls.append({"hay": haystack, **kind})
    )
    monkeypatch.setattr(theirs, "get_haystack", lambda type_haystack: type_haystack)
    for function in ("get_tokenizer", "resolve_tokenizer_name"):
        monkeypatch.setattr(theirs, function, lambda _: None)
    monkeypatch.setattr(theirs, "download_dataset", list)
    getattr(theirs, name)(max_seq_lengths=[4096])
    (call,) = calls
    assert call.pop("hay") == call["type_haystack"]
    rest = {
        "max_seq_length": 4096,
        "template": theirs.TEMPLATE,
        "num_samples": ruler.QUESTIONS,
        "TOKENIZER": None,
    }
    assert call == ruler.NEEDLES[name] | rest


def test_choices_are_lm_eval_s() -> None:
    listed = harness_data.task_configs("leaderboard/bbh_mc")
    counts = {name.removeprefix("leaderboard_"): len(c["doc_to_choice"]) for name, c in listed.items()}
    assert counts == {key: n for key, n in openllm_v2.CHOICES.items() if key.startswith("bbh_")}


@pytest.mark.parametrize("suite", [openllm_v1, openllm_v2], ids=["v1", "v2"])
def test_needs_name_the_splits_that_tasks_read(suite: ModuleType) -> None:
    for part in choose(suite.COLUMNS, ())[0]:
        assert set(part.splits) <= set(part.column.need.splits)


def test_the_same_seed_shuffles_alike(run: Callable[..., SuiteResult]) -> None:
    first, second = (run(openllm_v2, tasks=("gpqa",), limit=2).items for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ("helaswag",)}, "'helaswag' is no task of this suite; did you mean hellaswag"),
        ({"datasets": None}, "give the folder of datasets"),
        ({"tasks": ("hellaswag",), "datasets": "few"}, "10 examples precede each question"),
    ],
    ids=["task", "folder", "examples"],
)
def test_refuses(run: Callable[..., SuiteResult], tmp_path: Path, options: dict[str, Any], said: str) -> None:
    if options.get("datasets") == "few":
        options = {**options, "datasets": tmp_path}
        row = {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": list("defg"), "label": "0"}
        for split in ("train", "validation"):
            harness_data.jsonl(tmp_path / "hellaswag" / f"{split}.jsonl", [row] * 3)
    with pytest.raises(EvaluationError, match=said):
        run(openllm_v1, **options)


def test_nan_is_a_sentence(model: torch.nn.Module, root: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden.new_full((*hidden.shape[:-1], 2048), float("nan"))

    head = model.lm_head
    model.lm_head = Broken()
    try:
        target = open_target(model, tokenizer=load_tokenizer(DEMO), name="broken")
        for task in ("winogrande", "gsm8k"):
            options = Options(datasets=root, limit=1, max_new_tokens=1, tasks=(task,))
            with pytest.raises(EvaluationError, match=r"broken: .* NaN"):
                openllm_v1.run(Job(target, None, options, Store(), lambda done, of: None))
    finally:
        model.lm_head = head


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("openllm-v1", "openllm-v2", "ruler"):
        with pytest.raises(EvaluationError, match=r'pip install "pennyweight\[lm-eval\]"'):
            SUITES[name].load()


def test_lm_eval_s_command_line_has_our_model(tmp_path: Path) -> None:
    harness_data.jsonl(
        tmp_path / "rows.jsonl", [{"question": "Hot is", "choices": ["fire", "ice"], "gold": 0}]
    )
    (tmp_path / "ours.yaml").write_text(
        "task: ours\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: choices\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pennyweight.lm_eval", "run", "--model", "pennyweight", "--model_args",
         f"pretrained={DEMO},dtype=float32", "--tasks", str(tmp_path / "ours.yaml")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(pennyweight.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0 and "|acc" in done.stdout, done.stderr[-2000:]
