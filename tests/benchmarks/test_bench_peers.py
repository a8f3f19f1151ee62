# SPDX-License-Identifier: Apache-2.0
"""The workers that peers run in, on a made-up runtime: what is asked, what comes back, and what a failure costs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import peers
import roofline

RUNTIME = textwrap.dedent("""
    import os, sys
    import numpy as np
    from worker import Peer

    def start(threads):
        print("a library says hello on standard output")

    def product(weight):
        return Peer(weight.nbytes, np.array, lambda x: x @ weight.T, np.asarray, np.sum)

    def refuses(weight):
        raise ValueError("not on this processor")

    def dies(weight):
        return Peer(1, np.array, lambda x: os.kill(os.getpid(), 4), np.asarray, np.sum)

    PEERS = {"fake_product": product, "fake_refuses": refuses, "fake_dies": dies, "fake_again": product}
""")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roofline.library(tmp_path_factory.mktemp("limits"))


@pytest.fixture
def crew(tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[peers.Crew]:
    (tmp_path / "runtime_fake.py").write_text(RUNTIME)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(peers, "python", lambda name: Path(sys.executable) if name == "fake" else None)
    names = ["fake_product", "fake_refuses", "fake_dies", "fake_again", "elsewhere_product"]
    with peers.crew(names, ["1", str(code), "1000000"]) as made:
        yield made


def state(worker: peers.Worker) -> str:
    return Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_workers_multiply_and_one_that_dies_takes_no_other_along(crew: peers.Crew) -> None:
    assert crew.absent == {"elsewhere": "not installed: make peers PEERS=elsewhere"}
    weight, x = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((2, 4), np.float32)
    crew.prepare(weight)
    assert crew.sizes == {"fake_product": weight.nbytes, "fake_dies": 1, "fake_again": weight.nbytes}
    assert crew.refused == {"fake_refuses": "ValueError: not on this processor"}
    crew.input(x)
    with pytest.raises(peers.PeerFailed, match=r"ended at run \(signal SIGILL\)"):
        crew.run("fake_dies")
    assert "fake_dies" not in crew.sizes and "fake_dies" in crew.refused
    for name in ("fake_product", "fake_again"):  # in a new process by now
        y, seconds = crew.run(name)
        np.testing.assert_array_equal(y, x @ weight.T)
        assert seconds > 0 and crew.time(name) > 0
    assert state(crew._workers["fake"]) == "T"  # stopped: costs the others nothing


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("none", []),
        ("bf16", ["torch_bf16", "torch_bf16_prepacked"]),
        ("zentorch_woq,torch_bf16", ["torch_bf16", "zentorch_woq"]),
        ("all", list(peers.PEERS)),
    ],
)
def test_peers_are_chosen_by_group_and_name(wanted: str, found: list[str]) -> None:
    assert peers.chosen(wanted) == found


def test_an_unknown_peer_is_named() -> None:
    with pytest.raises(SystemExit, match="openvino is none of all, none, bf16"):
        peers.chosen("bf16,openvino")
