# SPDX-License-Identifier: Apache-2.0
"""Local datasets: the layouts that are read, and what is said of one that is not right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import datasets
from pennyweight.evaluate.needs import Need

NEED = Need("sums", "someone/sums", "main/test: question, answer.", ("test",), ("question", "answer"))
ROWS = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(3)]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sums/main/test.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("sums/main/test.json", json.dumps(ROWS)),
        ("sums/main/data/test.csv", "question,answer\n" + "".join(f"{r['question']},{r['answer']}\n" for r in ROWS)),
    ],
)  # fmt: skip
def test_reads_layout(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    datasets.check(tmp_path, NEED, "main", ("test",))
    assert datasets.read(tmp_path, NEED, "main", "test") == ROWS


def test_reads_the_hub_s_shards_in_order(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "sums" / "data"
    folder.mkdir(parents=True)
    for number, rows in enumerate((ROWS[:1], ROWS[1:])):
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"test-{number:05}-of-00002.parquet")
    assert datasets.read(tmp_path, NEED, None, "test") == ROWS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("other/x", "", r"sums is not there. sums: main/test: question, answer. Published as someone/sums"),
        ("sums/main/train.jsonl", "{}", r"no split 'test': it has train.jsonl; put test.jsonl .* into .*sums/main"),
        ("sums/README.md", "", r"no split 'test': .*sums/main is not there"),
        ("sums/main/test.jsonl", '{"question": "a", "answer": "b"}\n{"question": 1}', "row 2 has no column 'answer'"),
        ("sums/main/test.jsonl", '{"question": "a", "answer": "b"}\n{"que', "is damaged .* line 2"),
        ("sums/main/test.jsonl", "[1]\n", "row 1 is no object but list"),
        ("sums/main/test.parquet", "PAR0", "is damaged or no .parquet file"),
    ],
)  # fmt: skip
def test_says_what_is_wrong(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path / name, text)
    with pytest.raises(EvaluationError, match=said):
        datasets.read(tmp_path, NEED, "main", "test")


def test_check_finds_empty_files_and_missing_folders(tmp_path: Path) -> None:
    write(tmp_path / "sums" / "main" / "test.jsonl", "\n")
    with pytest.raises(EvaluationError, match="has no rows"):
        datasets.check(tmp_path, NEED, "main", ("test",))
    with pytest.raises(EvaluationError, match="give the folder of datasets"):
        datasets.check(None, NEED, "main", ("test",))
