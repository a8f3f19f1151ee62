# SPDX-License-Identifier: Apache-2.0
"""Print torch's folder without importing it (an import takes seconds and may load a driver)."""

import importlib.util
import os
import sys
import sysconfig


def find_torch() -> str:
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        return os.path.dirname(spec.origin)
    # Build isolation hides installed packages: look where this interpreter keeps them.
    for path in (sysconfig.get_path("platlib"), sysconfig.get_path("purelib")):
        if os.path.isdir(os.path.join(path, "torch", "include")):
            return os.path.join(path, "torch")
    sys.exit(
        "pennyweight: torch was not found; install torch >= 2.11 first and build with "
        "pip install --no-build-isolation, or set PW_TORCH_DIR to torch's folder"
    )


if __name__ == "__main__":
    print(find_torch())
