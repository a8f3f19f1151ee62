# SPDX-License-Identifier: Apache-2.0
"""The checks themselves: each kernel broken on purpose, in one place, must be caught by the check named.

A variant replaces ``old``, which must be there exactly once, by ``new`` in one file of kernels/cuda, compiles ``unit``
from the changed copy, and links it with everything else of the emulated build.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from broken import VARIANTS, Broken
from emulated_build import ROOT, Build, run


def sources(folder: Path) -> list[dict[str, str]]:
    """What this build's test program is made of; objects of sources that are gone may lie there too."""
    entries = json.loads((folder / "compile_commands.json").read_text())
    return [entry for entry in entries if "cuda_tests.dir" in entry["output"]]


def compile_command(folder: Path, source: Path) -> list[str]:
    """How ``source`` is compiled in this build, without its source and output."""
    for entry in sources(folder):
        if Path(entry["file"]) == source:
            words = shlex.split(entry["command"])
            if "ccache" in Path(words[0]).name:
                words = words[1:]
            at = words.index("-o")
            return [
                word
                for i, word in enumerate(words)
                if i not in (at, at + 1) and word not in ("-c", str(source))
            ]
    raise AssertionError(f"{source} is not part of the build")


def build_broken(variant: Broken, folder: Path, out: Path) -> Path:
    """The test program with this variant inside."""
    kernels = out / "kernels/cuda"
    shutil.copytree(ROOT / "kernels/cuda", kernels)
    text = (kernels / variant.file).read_text()
    assert text.count(variant.old) == 1, f"{variant.file} has {text.count(variant.old)} times: {variant.old}"
    (kernels / variant.file).write_text(text.replace(variant.old, variant.new))
    command = compile_command(folder, ROOT / "kernels/cuda" / variant.unit)
    words = [command[0], f"-I{kernels}", *command[1:]]  # the changed copy's own headers come first
    changed = out / "changed.o"
    compiled = run(*words, "-w", "-c", kernels / variant.unit, "-o", changed)
    assert compiled.returncode == 0, compiled.stdout
    objects = [
        folder / entry["output"] for entry in sources(folder) if Path(entry["file"]).name != variant.unit
    ]
    flags = [word for word in words if word.startswith("-fsanitize")]
    linked = run(words[0], *flags, *objects, changed, "-o", out / "cuda_tests")
    assert linked.returncode == 0, linked.stdout
    return out / "cuda_tests"


@pytest.mark.parametrize("variant", VARIANTS, ids=[v.name for v in VARIANTS])
def test_broken_kernel_is_caught(emulated: Build, tmp_path: Path, variant: Broken) -> None:
    program = build_broken(variant, emulated(variant.check), tmp_path)
    result = run(program, variant.cases, "--small", "--compute", variant.compute, "--seeds", "0", "5")
    assert result.returncode != 0, f"not caught:\n{result.stdout}"
    assert variant.says in result.stdout, f"caught, but not as expected ({variant.says}):\n{result.stdout}"
