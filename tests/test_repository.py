# SPDX-License-Identifier: Apache-2.0
"""The repository as a whole: what it promises in its README, its metadata, its libraries."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pennyweight
from pennyweight import _C

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CORE = {"torch", "transformers", "safetensors", "numpy", "tqdm", "typer", "rich"}


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that has the demo model and takes what an example writes."""
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    return tmp_path


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_readme_example_runs(code: str, workplace: Path) -> None:
    result = run_python(code, workplace)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_readme_first_example_is_ten_lines() -> None:
    assert len(EXAMPLES[0].split("\n")) - 1 <= 11  # ten and the blank line after the imports


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()]
    assert not missing


def test_readme_support_grid_is_that_of_the_registry() -> None:
    if not _C.cuda()["built"]:
        pytest.skip("the row of cards needs a build with CUDA")
    result = run_python(
        "import sys; sys.path.insert(0, 'benchmarks'); import readme_table as r; from pennyweight import _C;"
        "print(r.grid(_C.ops()) in r.README.read_text())",
        ROOT,
    )
    assert result.stdout.strip() == "True", "run python benchmarks/readme_table.py" + result.stderr


def test_core_dependencies_are_the_documented_ones() -> None:
    required = [r for r in importlib.metadata.requires("pennyweight") or [] if "extra ==" not in r]
    assert {re.split(r"[<>=!~ ;\[]", r)[0] for r in required} == CORE
    assert not any("<" in r or "==" in r for r in required), "no upper caps"


def test_import_is_silent_and_light(tmp_path: Path) -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import pennyweight;"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('pennyweight')));"
        "assert not torch.cuda.is_initialized()"
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    heavy = {"transformers", "tqdm", "typer", "rich", "safetensors", "tokenizers", "huggingface_hub"}
    assert not heavy & {name.split(".")[0] for name in result.stdout.split()}


def test_import_loads_no_driver(tmp_path: Path) -> None:
    code = "import pennyweight; from pennyweight import _C; _C.ops(); print(open('/proc/self/maps').read())"
    assert "libcuda.so" not in run_python(code, tmp_path).stdout


def test_cuda_state_is_plain() -> None:
    state = _C.cuda()
    assert set(state) == {"built", "runtime", "architectures", "driver"}
    assert bool(state["architectures"]) == state["built"] == (state["runtime"] is not None)
    assert state["driver"].startswith("none: ") or state["driver"][0].isdigit()


def test_stub_names_what_the_extension_has() -> None:
    stub = ast.parse((ROOT / "python" / "pennyweight" / "_C.pyi").read_text())
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert functions == {name for name in dir(_C) if callable(getattr(_C, name))}


def test_version_is_the_metadata_s() -> None:
    assert _C.version == importlib.metadata.version("pennyweight")


def test_package_carries_its_types() -> None:
    folder = Path(pennyweight.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_C.pyi").exists()


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split()


def test_sources_begin_with_their_licence() -> None:
    sources = [f for f in tracked() if f.endswith((".py", ".pyi", ".cpp", ".h", ".cu", ".cuh"))]
    bare = [f for f in sources if "SPDX-License-Identifier: Apache-2.0" not in (ROOT / f).read_text()[:120]]
    assert not bare


def test_no_large_file_is_tracked() -> None:
    assert not [f for f in tracked() if (ROOT / f).stat().st_size > 10_000_000]
