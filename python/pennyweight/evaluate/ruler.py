# SPDX-License-Identifier: Apache-2.0
"""Suite `ruler`: lm-eval's thirteen RULER tasks at each context length, 4k to 128k.

lm-eval's own functions make the questions with the model's tokenizer, sized to the length; essays, SQuAD and HotpotQA
come from the local folder. A length's score is the mean of its tasks, the average that of the lengths. Prompts go
through the chat template where the tokenizer has one, whose tokens count, as do the answer's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import datasets
from pennyweight.evaluate.harness import (
    STEPS,
    Column,
    Part,
    choose,
    describe_sample,
    load_task,
    run_task,
    seeded,
)
from pennyweight.evaluate.language_models import language_model
from pennyweight.evaluate.needs import ESSAYS, HOTPOTQA, SQUAD, Need, find_punkt
from pennyweight.evaluate.statistics import task_scores
from pennyweight.evaluate.suites import Job, SuiteResult

LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072)
#: Questions of each task at each length, as in the original.
QUESTIONS = 500
#: Tokens kept free for the beginning of the answer, which lm-eval does not count.
PREFIX = 64
COLUMN = Column("ruler", "ruler", ESSAYS, ("", "none"))
#: What hides the needle, kinds of key and value, and how many of what.
NEEDLES: dict[str, dict[str, Any]] = {
    "niah_single_1": {"type_haystack": "repeat", "type_needle_k": "words", "type_needle_v": "numbers"},
    "niah_single_2": {"type_haystack": "essay", "type_needle_k": "words", "type_needle_v": "numbers"},
    "niah_single_3": {"type_haystack": "essay", "type_needle_k": "words", "type_needle_v": "uuids"},
    "niah_multikey_1": {
        "type_haystack": "essay", "type_needle_k": "words", "type_needle_v": "numbers", "num_needle_k": 4,
    },
    "niah_multikey_2": {"type_haystack": "needle", "type_needle_k": "words", "type_needle_v": "numbers"},
    "niah_multikey_3": {"type_haystack": "needle", "type_needle_k": "uuids", "type_needle_v": "uuids"},
    "niah_multivalue": {
        "type_haystack": "essay", "type_needle_k": "words", "type_needle_v": "numbers", "num_needle_v": 4,
    },
    "niah_multiquery": {
        "type_haystack": "essay", "type_needle_k": "words", "type_needle_v": "numbers", "num_needle_q": 4,
    },
}  # fmt: skip
DATA: dict[str, Need] = {"ruler_qa_squad": SQUAD, "ruler_qa_hotpot": HOTPOTQA} | {
    name: ESSAYS for name, kind in NEEDLES.items() if kind["type_haystack"] == "essay"
}
Row = dict[str, Any]


def run(job: Job) -> SuiteResult:
    """Run the suite."""
    if job.target.tokenizer is None:
        raise EvaluationError(
            f"{job.target.name}: ruler sizes its questions with the model's tokenizer; give it (--tokenizer DIR)"
        )
    find_punkt(job.options.datasets)
    parts, partial = choose([COLUMN], job.options.tasks)
    for need in {DATA[part.name] for part in parts if part.name in DATA}:
        if need is SQUAD:
            datasets.find(job.options.datasets, SQUAD, None, SQUAD.splits[0])
        else:
            datasets.check(job.options.datasets, need, None, need.splits)
    lengths, notes = _lengths(job)
    makers = {length: Maker(job, length) for length in lengths}
    runs = [(length, part) for length in lengths for part in parts]
    items: list[Row] = []
    for number, (length, part) in enumerate(runs):
        key = f"{length}/{part.name}"
        entry = job.store.get(key)
        if entry is None:
            entry = job.store.put(key, {"items": _run_part(job, part, makers[length], (number, len(runs)))})
        items += entry["items"]
        job.progress((number + 1) * STEPS, len(runs) * STEPS)
    if partial:
        notes.append(f"only a selection of tasks was run: {', '.join(job.options.tasks)}")
    if job.options.limit is not None:
        notes.append(f"{job.options.limit} of {QUESTIONS} questions of each task at each length were made")
    tasks = task_scores(items)
    average = sum(tasks.values()) / len(tasks)
    return SuiteResult({"average": average, "ruler": average, **tasks}, tasks, items, notes, partial)


def _run_part(job: Job, part: Part, maker: Maker, place: tuple[int, int]) -> list[Row]:
    # Every result holds 4096, whatever its length is.
    names = dict.fromkeys(["4096", str(maker.length)])
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]
    overrides: dict[str, Any] = {"metric_list": metrics}
    if job.options.max_new_tokens is not None:
        kwargs = part.manager.task_index[part.name].cfg["generation_kwargs"]
        overrides["generation_kwargs"] = kwargs | {"max_gen_toks": job.options.max_new_tokens}
    with seeded(job.options.seed):
        rows = maker.rows(part.name)
        task = load_task(part, overrides, lambda split: rows, job.options.seed)
        lm = language_model(job, max_length=maker.most, chat=maker.chat)
        _, samples = run_task(job, lm, task, chat=maker.chat, place=place)
    return [_item(part, task, sample, maker.length) for sample in samples]


def _item(part: Part, task: Task, sample: Row, length: int) -> Row:
    shown = describe_sample(task, sample)
    name = f"{length}/{part.name}"
    return {**shown, "id": f"{name}/{sample['doc_id']}", "task": name, "score": float(sample[str(length)])}


def _lengths(job: Job) -> tuple[list[int], list[str]]:
    """Return the context lengths, and a note where the model has room for some only."""
    asked = job.options.context_lengths
    most = _positions(job)
    lengths = [length for length in asked or LENGTHS if most is None or length <= most]
    if (asked and len(lengths) < len(asked)) or not lengths:
        raise EvaluationError(
            f"{job.target.name}: has {most} positions, ruler was asked for {max(asked or LENGTHS[:1])} tokens; name "
            "lengths that fit (--context-length)"
        )
    left_out = [] if asked else [length for length in LENGTHS if length not in lengths]
    words = ", ".join(map(str, left_out))
    return lengths, [f"the model has {most} positions: left out {words}"] if left_out else []


def _positions(job: Job) -> int | None:
    """Return how many tokens the model takes; a server does not tell."""
    if job.target.kind == "server":
        return None
    target: Any = job.target
    return int(target.model.config.get_text_config().max_position_embeddings)


@dataclass
class Maker:
    """Makes the questions of one length with lm-eval's functions.

    Attributes:
        job: Has the tokenizer, the folder of datasets, the limit, the seed.
        length: Tokens of prompt and answer together.
    """

    job: Job
    length: int

    def __post_init__(self) -> None:
        self.tokenizer = self.job.target.tokenizer
        self.chat = bool(getattr(self.tokenizer, "chat_template", None))
        self.most = _positions(self.job) or self.length + 1
        self.room = self.length - PREFIX - self._template_tokens()
        self.count = min(self.job.options.limit or QUESTIONS, QUESTIONS)

    def rows(self, name: str) -> list[Row]:
        """Return the questions of a task, as lm-eval's tasks read them."""
        from lm_eval.tasks.ruler import cwe_utils

        # lm-eval draws common words from a generator of its own, which would go on where the last model left it.
        cwe_utils.RNG.seed(self.job.options.seed)
        makers: dict[str, Callable[[], list[Row]]] = {
            "ruler_vt": self._variables, "ruler_cwe": self._common_words, "ruler_fwe": self._frequent_words,
            "ruler_qa_squad": lambda: self._questions(*squad(self._file(SQUAD))),
            "ruler_qa_hotpot": lambda: self._questions(*hotpotqa(self._read(HOTPOTQA))),
        }  # fmt: skip
        rows = makers[name]() if name in makers else self._needles(**NEEDLES[name])
        return [{**row, "max_length": self.length} for row in rows]

    def _needles(self, **kind: Any) -> list[Row]:
        from lm_eval.tasks.ruler.niah_utils import TEMPLATE
        from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack

        haystack = self._essays if kind["type_haystack"] == "essay" else get_haystack(kind["type_haystack"])
        rows: list[Row] = generate_samples(
            haystack,
            self.tokenizer,
            max_seq_length=self.room,
            template=TEMPLATE,
            num_samples=self.count,
            **kind,
        )
        if not rows:
            raise self._too_short("the needles")
        return rows

    def _variables(self) -> list[Row]:
        from lm_eval.tasks.ruler.vt_utils import generate_input_output, sys_vartrack_w_noise_random

        # lm-eval shortens a text that does not fit without end.
        example_room, noises, answer_room = 500, 5, 30
        for _ in range(5):
            text, answer = generate_input_output(noises, 1, 4, is_icl=True)
            if self._tokens(f"{text} {answer}") + answer_room > example_room - 2 * noises:
                raise self._too_short("variable tracking's example of 500 tokens")
        example = sys_vartrack_w_noise_random(
            self.tokenizer, num_samples=1, max_seq_length=example_room, incremental=noises
        )[0]
        text, answer = generate_input_output(2 * noises, 1, 4)
        if self._tokens(f"{text} {answer}") + answer_room + example_room > self.room:
            raise self._too_short("variable tracking")
        rows: list[Row] = sys_vartrack_w_noise_random(
            self.tokenizer, num_samples=self.count, max_seq_length=self.room, icl_example=example
        )
        return rows

    def _common_words(self) -> list[Row]:
        from lm_eval.tasks.ruler.cwe_utils import generate_input_output, sys_word_pair_random

        example, text, answer = generate_input_output(10, self.room)
        if self._tokens(f"{example}\n{text} {answer}") + 120 > self.room:
            raise self._too_short("common words")
        rows: list[Row] = sys_word_pair_random(self.count, self.room, self.tokenizer)
        return rows

    def _frequent_words(self) -> list[Row]:
        from lm_eval.tasks.ruler.fwe_utils import sys_kwext

        rows: list[Row] = sys_kwext(self.tokenizer, self.room - 50, num_samples=self.count)
        return rows

    def _questions(self, questions: list[Row], documents: list[str]) -> list[Row]:
        from lm_eval.tasks.ruler.qa_utils import generate_samples

        try:
            rows: list[Row] = generate_samples(
                self.tokenizer, documents, questions, self.room, num_samples=min(self.count, len(questions))
            )
        except ValueError as error:
            raise self._too_short(f"its questions ({error})") from error
        return rows

    @cached_property
    def _essays(self) -> list[str]:
        text = " ".join(row["text"] for row in self._read(ESSAYS))
        return re.sub(r"\s+", " ", text).split(" ")

    def _read(self, need: Need) -> list[Row]:
        return datasets.read(self.job.options.datasets, need, None, need.splits[0])

    def _file(self, need: Need) -> Path:
        return datasets.find(self.job.options.datasets, need, None, need.splits[0])[0]

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False).input_ids)

    def _template_tokens(self) -> int:
        if not self.chat:
            return 1
        message = [{"role": "user", "content": "x"}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def _too_short(self, what: str) -> EvaluationError:
        return EvaluationError(
            f"{self.job.target.name}: a context of {self.length} tokens of its tokenizer has no room for {what}; ask "
            "for longer ones (--context-length), or for other tasks"
        )


def squad(path: Path) -> tuple[list[Row], list[str]]:
    """Return the answerable questions and the paragraphs of a SQuAD 2.0 file, in lm-eval's order.

    Raises:
        EvaluationError: It is not laid out as SQuAD.
    """
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        documents = sorted(
            {paragraph["context"] for article in articles for paragraph in article["paragraphs"]}
        )
        index = {document: number for number, document in enumerate(documents)}
        questions = []
        for article in articles:
            related = [index[paragraph["context"]] for paragraph in article["paragraphs"]]
            for paragraph in article["paragraphs"]:
                own = index[paragraph["context"]]
                questions += [
                    {
                        "query": question["question"], "outputs": [answer["text"] for answer in question["answers"]],
                        "context": [own], "more_context": [number for number in related if number != own],
                    }
                    for question in paragraph["qas"] if not question["is_impossible"]
                ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path}: is not laid out as SQuAD 2.0 ({type(error).__name__}: {error}); {SQUAD.layout} Published as "
            f"{SQUAD.hub}"
        ) from error
    return _some(questions, path), documents


def hotpotqa(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Return the questions and the paragraphs of HotpotQA's rows, in lm-eval's order."""
    texts = [[f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]] for row in rows]
    documents = sorted({text for some in texts for text in some})
    index = {document: number for number, document in enumerate(documents)}
    questions = [
        {"query": row["question"], "outputs": [row["answer"]], "context": [index[text] for text in some]}
        for row, some in zip(rows, texts, strict=True)
    ]
    return questions, documents


def _some(questions: list[Row], path: Path) -> list[Row]:
    if not questions:
        raise EvaluationError(f"{path}: has no answerable question")
    return questions
