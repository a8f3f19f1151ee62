# SPDX-License-Identifier: Apache-2.0
"""Print the include folder of the wheel nvidia-cutlass without importing it, or nothing where it is not installed."""

import importlib.util
import os
import sysconfig


def find_cutlass() -> str:
    spec = importlib.util.find_spec("cutlass_library")
    packages = [os.path.dirname(spec.origin)] if spec and spec.origin else []
    # Build isolation hides installed packages: look where this interpreter keeps them.
    packages += [os.path.join(sysconfig.get_path(name), "cutlass_library") for name in ("purelib", "platlib")]
    for package in packages:
        include = os.path.join(package, "source", "include")
        if os.path.isfile(os.path.join(include, "cutlass", "cutlass.h")):
            return include
    return ""


if __name__ == "__main__":
    print(find_cutlass())
