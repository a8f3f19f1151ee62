# SPDX-License-Identifier: Apache-2.0
"""lm-eval as the suites use it: its tasks as it ships them, our model under it, rows from a local folder.

A suite is a list of `Column`. For each of a column's tasks:
    rows of the local dataset -> lm-eval's task (its prompts, shots, filters, metrics) -> lm-eval's evaluate -> items
Finished tasks are in the job's store, so that a stopped run goes on with the next one.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets as hf_datasets
import lm_eval.tasks
import numpy as np
import torch
from lm_eval.api.model import LM, CacheHook
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from pennyweight.errors import EvaluationError, PennyweightError
from pennyweight.evaluate import datasets
from pennyweight.evaluate.language_models import language_model
from pennyweight.evaluate.needs import Need
from pennyweight.evaluate.quiet import quiet
from pennyweight.evaluate.suites import Job, SuiteResult, unknown
from pennyweight.evaluate.targets import Target

TASKS = Path(lm_eval.tasks.__file__).parent
#: lm-eval's defaults with seed 0: `random` starts at 0, numpy, torch and the choice of examples at 1234.
OTHER_SEED = 1234
#: Characters of a question and of an answer that an item keeps.
SHOWN = 300


@dataclass(frozen=True)
class Column:
    """One column of a suite's table.

    Attributes:
        key: Stable, as the study's tables name it.
        folder: Of its tasks, in lm-eval's.
        need: Its dataset.
        metric: Whose value counts, and the filter that it is taken after.
        tasks: Of lm-eval; empty: all in the folder.
        chat: Whether prompts go through the chat template, examples as turns of their own.
        shots: Examples before a question; None: as the task has it.
        max_length: Tokens of prompt and answer together at most.
        max_gen_toks: Of an answer; None: as the task has it.
        share: Whether the metric is a share of an answer's probability, not right or wrong.
        note: What differs from what the study ran.
    """

    key: str
    folder: str
    need: Need
    metric: tuple[str, str]
    tasks: tuple[str, ...] = ()
    chat: bool = False
    shots: int | None = None
    max_length: int = 4096
    max_gen_toks: int | None = None
    share: bool = False
    note: str = ""


@dataclass(frozen=True)
class Part:
    """One task of lm-eval under a column.

    Attributes:
        column: Whose task it is.
        name: lm-eval's.
        config: Configuration of the dataset; None: it has none.
        splits: That the task reads.
        manager: That knows the task.
        generates: Whether it makes text; else it compares log-likelihoods.
        prefixed: Whether the answer's beginning is given.
    """

    column: Column
    name: str
    config: str | None
    splits: tuple[str, ...]
    manager: TaskManager
    generates: bool
    prefixed: bool


#: Makes items from the samples of a task: (part, task, samples) -> items.
Scorer = Callable[[Part, Task, list[dict[str, Any]]], list[dict[str, Any]]]


def run_columns(
    job: Job, columns: Sequence[Column], score: Scorer, average: Callable[[list[dict[str, Any]]], float]
) -> SuiteResult:
    """Run the tasks of all columns that were asked for.

    Args:
        job: As the suite got it.
        columns: Of the suite.
        score: Makes a task's items.
        average: Of a column's items, 0 to 1.
    """
    parts, partial = choose(columns, job.options.tasks)
    for part in parts:
        datasets.check(job.options.datasets, part.column.need, part.config, part.splits)
        check_target(job.target, part)
    done: dict[str, list[dict[str, Any]]] = {}
    extra: dict[str, dict[str, float]] = {}
    for number, part in enumerate(parts):
        entry = job.store.get(part.name)
        if entry is None:
            entry = job.store.put(part.name, _run_part(job, part, score, (number, len(parts))))
        done.setdefault(part.column.key, []).extend(entry["items"])
        extra[part.name] = entry["metrics"]
        job.progress((number + 1) * STEPS, len(parts) * STEPS)
    tasks = {key: 100 * average(items) for key, items in done.items()}
    metrics = {"average": sum(tasks.values()) / len(tasks), **tasks, "lm_eval": extra}
    notes = [f"{part.key}: {part.note}" for part in columns if part.note and part.key in tasks]
    if partial:
        notes.append(f"only a selection of tasks was run: {', '.join(job.options.tasks)}")
    if job.options.limit is not None:
        notes.append(f"only the first {job.options.limit} questions of each task were asked")
    if job.options.max_new_tokens is not None:
        notes.append(
            f"generated answers end after {job.options.max_new_tokens} tokens, not where the tasks have it"
        )
    items = [item for found in done.values() for item in found]
    return SuiteResult(metrics, tasks, items, notes, partial)


#: Steps of the progress bar per task.
STEPS = 1000


def choose(columns: Sequence[Column], wanted: Sequence[str]) -> tuple[list[Part], bool]:
    """Return the tasks of the columns, or of these those that were asked for, and whether any are left out.

    Args:
        columns: Of the suite.
        wanted: Keys of columns or names of lm-eval's tasks; empty: all.
    Raises:
        EvaluationError: A name that is neither; the text has the nearest.
    """
    parts = [part for column in columns for part in _parts(column)]
    if not wanted:
        return parts, False
    known = {part.name for part in parts} | {column.key for column in columns}
    for name in wanted:
        if name not in known:
            raise EvaluationError(f"evaluate: {unknown('task of this suite', name, known)}")
    chosen = [part for part in parts if {part.name, part.column.key} & set(wanted)]
    return chosen, len(chosen) < len(parts)


def check_target(target: Target, part: Part) -> None:
    """Raise EvaluationError where the model cannot be asked what the task asks."""
    tokenizer = target.tokenizer
    if tokenizer is None and not (target.kind == "server" and part.generates and not part.prefixed):
        raise EvaluationError(
            f"{target.name}: task {part.name!r} needs the model's tokenizer; give it (--tokenizer DIR)"
        )
    if tokenizer is not None and part.column.chat and not getattr(tokenizer, "chat_template", None):
        raise EvaluationError(
            f"{target.name}: task {part.name!r} asks through the chat template, and its tokenizer has none; put the "
            "chat_template.jinja of the model it was made from into its folder"
        )


def load_task(
    part: Part, overrides: Mapping[str, Any], read: Callable[[str], list[dict[str, Any]]], seed: int
) -> Task:
    """Build a task of lm-eval on our rows.

    Args:
        part: Which.
        overrides: Of its configuration.
        read: Returns the rows of a split.
        seed: Of the choice of examples, and of whatever the task draws.
    """

    def rows(**_: Any) -> dict[str, hf_datasets.Dataset]:
        return {split: hf_datasets.Dataset.from_list(read(split)) for split in part.splits}

    changed = {"task": part.name, "custom_dataset": rows, **overrides}
    try:
        task: Task = part.manager.load([{"group": "pennyweight", "task": [changed]}])["tasks"][part.name]
    except PennyweightError:
        raise
    except (
        Exception
    ) as error:  # whatever its templates and functions raise on rows that are not what they expect
        raise EvaluationError(
            f"task {part.name!r}: lm-eval cannot use the rows of dataset {part.column.need.name!r}: "
            f"{type(error).__name__}: {error}; {part.column.need.layout}"
        ) from error
    # lm-eval processes the rows anew for each pass; some tasks shuffle the choices there, which it relies on the
    # files of `datasets` to hide, and rows in memory have none.
    if task.config.process_docs is not None:
        task.set_config("process_docs", _once(task.config.process_docs))
    task.set_fewshot_seed(OTHER_SEED + seed)
    return task


def run_task(
    job: Job, lm: LM, task: Task, *, chat: bool, place: tuple[int, int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one task; returns its metrics ("name,filter") and its samples, as lm-eval makes both.

    Args:
        job: Has target, limit and progress.
        lm: Of `language_model`.
        task: Of `load_task`.
        chat: Whether prompts go through the chat template.
        place: Number of the task and of all, for the bar.
    """
    name = task.task_name
    hook = _Progress(job.progress, place)
    lm.set_cache_hook(hook)
    with _finite(job.target), quiet():
        hook.expect(task, job.options.limit)
        found = evaluate(
            lm, {"tasks": {name: task}, "groups": {}, "group_map": {}}, limit=job.options.limit,
            bootstrap_iters=0, apply_chat_template=chat, fewshot_as_multiturn=chat,
        )  # fmt: skip
    samples = found["samples"][name]
    _check_finite(job.target, name, samples)
    return {key: value for key, value in found["results"][name].items() if isinstance(value, float)}, samples


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start all generators as lm-eval does, and leave them as they were."""
    before, before_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(OTHER_SEED + seed)
        torch.manual_seed(OTHER_SEED + seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(before_numpy)


def describe_sample(task: Task, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader wants to see of a sample: the question, the answer, what would have been right."""
    doc = sample["doc"]
    question = task.doc_to_text(doc)
    if not isinstance(question, str):
        question = sample["arguments"][0][0]
    answers = sample["filtered_resps"]
    target = sample["target"]
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = [argument[1] for argument in sample["arguments"]]
        values = [float(value) for value, _ in answers]
        answer = choices[int(np.argmax(values))].strip() if choices else ""
        if isinstance(target, int) and 0 <= target < len(choices):
            target = choices[target].strip()
    else:
        answer = answers[0] if isinstance(answers[0], str) else str(answers[0])
    shown = {"question": question[-SHOWN:], "answer": answer[:SHOWN], "target": str(target)[:SHOWN]}
    return {"id": f"{task.task_name}/{sample['doc_id']}", **shown}


def column_items(part: Part, task: Task, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of a task whose metric is right or wrong, or a share: `correct`, else `score`."""
    metric, after = part.column.metric
    items = []
    for sample in samples:
        if sample["filter"] == after:
            value = float(sample[metric])
            result = {"score": value} if part.column.share else {"correct": bool(value)}
            items.append({"task": part.column.key, **describe_sample(task, sample), **result})
    return items


def _run_part(job: Job, part: Part, score: Scorer, place: tuple[int, int]) -> dict[str, Any]:
    column, options = part.column, job.options
    overrides: dict[str, Any] = {} if column.shots is None else {"num_fewshot": column.shots}
    if part.generates:
        kwargs = dict(part.manager.task_index[part.name].cfg.get("generation_kwargs", {}))
        tokens = column.max_gen_toks or kwargs.get("max_gen_toks", 256)
        overrides["generation_kwargs"] = kwargs | {"max_gen_toks": options.max_new_tokens or tokens}
    with seeded(options.seed), quiet():
        task = load_task(
            part,
            overrides,
            lambda split: datasets.read(options.datasets, column.need, part.config, split),
            options.seed,
        )
        check_shots(part, task)
        lm = language_model(job, max_length=column.max_length, chat=column.chat)
        metrics, samples = run_task(job, lm, task, chat=column.chat, place=place)
    return {"metrics": metrics, "items": score(part, task, samples)}


def check_shots(part: Part, task: Task) -> None:
    """Raise EvaluationError where there are fewer examples than shots."""
    shots = task.config.num_fewshot or 0
    examples = len(task.sampler.fewshot_docs())
    if shots > examples:
        raise EvaluationError(
            f"task {part.name!r}: {shots} examples precede each question, dataset {part.column.need.name!r} has "
            f"{examples} in its split {part.splits[-1]!r}; give the whole dataset"
        )


def _parts(column: Column) -> list[Part]:
    """Return the tasks of a column; only its folder is looked at, since all of lm-eval takes half a minute."""
    manager = TaskManager(include_defaults=False, include_path=[TASKS / column.folder])
    parts = []
    for name in column.tasks or manager.all_subtasks:
        config = manager.task_index[name].cfg
        parts.append(
            Part(
                column, name, config.get("dataset_name"), _splits(config), manager,
                config["output_type"] == "generate_until", "gen_prefix" in config,
            )
        )  # fmt: skip
    return parts


def _splits(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits that a task reads: that of the questions, and that of the examples where they are rows."""
    questions = config.get("test_split") or config["validation_split"]
    examples = config.get("fewshot_split")
    if examples is None and not (config.get("fewshot_config") or {}).get("samples"):
        examples = config.get("training_split") or config.get("validation_split")
    return tuple(dict.fromkeys([questions, examples or questions]))


def _once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a function of a dataset run once for each dataset."""
    known: dict[int, tuple[Any, Any]] = {}

    @functools.wraps(function)
    def process(dataset: Any) -> Any:
        if id(dataset) not in known:
            known[id(dataset)] = dataset, function(dataset)
        return known[id(dataset)][1]

    return process


class _Progress(CacheHook):  # type: ignore[misc]
    """lm-eval tells its cache of each answer; we only count."""

    def __init__(self, progress: Callable[[int, int], None], place: tuple[int, int]) -> None:
        super().__init__(None)
        self._progress, self._number, self._tasks = progress, *place
        self._requests, self._done = 1, 0

    def expect(self, task: Task, limit: int | None) -> None:
        """Say how many answers there will be, about."""
        questions = len(task.eval_docs)
        each = 1 if task.config.doc_to_choice is None else max(2, len(task.doc_to_choice(task.eval_docs[0])))
        self._requests = max(1, min(questions, limit or questions) * each)

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._done = min(self._done + 1, self._requests)
        done = self._number * STEPS + STEPS * self._done // self._requests
        self._progress(done, self._tasks * STEPS)


@contextlib.contextmanager
def _finite(target: Any) -> Iterator[None]:
    """Stop at the first logit of a last position that is NaN or Inf, while a model of this process is asked."""
    if target.kind == "server":
        yield
        return

    def check(_: Any, __: Any, output: Any) -> None:
        if not torch.isfinite(output.logits[:, -1]).all():
            raise EvaluationError(
                f"{target.name}: its logits hold NaN or Inf; the model is damaged or overflows in its dtype; quantize "
                "it again, or load it in another dtype"
            )

    handle = target.model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _check_finite(target: Target, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
    for sample in samples:
        for answer in sample["filtered_resps"]:
            if isinstance(answer, (tuple, list)) and not math.isfinite(answer[0]):
                raise EvaluationError(
                    f"{target.name}: the log-likelihood of an answer to question {sample['doc_id']} of {name!r} is "
                    f"{answer[0]}; the model is damaged or overflows in its dtype"
                )
