# SPDX-License-Identifier: Apache-2.0
"""The study's own tables ("Give Me BF16 or Give Me Death?", arXiv 2411.02355), as data with sources and errata.

    from pennyweight import study
    study.table(2)                                                          # shows itself
    study.table(2).row(model="Llama-3.1-8B-Instruct", scheme="W4A16-INT").cells["mmlu"].value
    study.table(5).row(size="70B", gpu="A100", scheme="W4A16-INT").cells["rag.latency_s"].value
    study.compare(["Llama-3.1-8B-Instruct-W4A16"], "W4A16-INT", "openllm-v1", {"average": 73.0})

A table is a file in data/; one more file is one more table. `recompute` holds each printed number against those it
follows from, and the errata in the files are exactly the ones that do not.
"""

from pennyweight.study.compare import Comparison, beside, compare
from pennyweight.study.intervals import Check
from pennyweight.study.recompute import disagreements
from pennyweight.study.tables import Column, Erratum, Printed, Row, Table, names, table

__all__ = [
    "Check",
    "Column",
    "Comparison",
    "Erratum",
    "Printed",
    "Row",
    "Table",
    "beside",
    "compare",
    "disagreements",
    "names",
    "table",
]
