# SPDX-License-Identifier: Apache-2.0
"""Quantize Llama-family models, run them on own kernels, hand them to vLLM.

Names are imported when first used, and torch with them, so that ``import pennyweight`` costs next to nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pennyweight.errors import (
    CalibrationError,
    CheckpointError,
    EvaluationError,
    MeasurementError,
    PennyweightError,
    ShapeError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from pennyweight import (
        algorithms,
        benchmark,
        calibration,
        evaluate,
        money,
        ops,
        study,
        testing,
        use_cases,
    )
    from pennyweight._C import version as __version__
    from pennyweight.checkpoint import accelerate, load, save
    from pennyweight.evaluate.sensitivity import sensitivity
    from pennyweight.explain import explain, implementations
    from pennyweight.layers import LinearW4A16, LinearW8A8FP, LinearW8A8INT, QuantizedLinear
    from pennyweight.linear_bf16 import LinearBF16
    from pennyweight.quantize import quantize
    from pennyweight.recipes import Recipe
    from pennyweight.recommend.advice import recommend
    from pennyweight.report import LayerReport, Report
    from pennyweight.report.page import report
    from pennyweight.schemes import Scheme, scheme

# Public name → (module, name there); None: the module itself.
_LAZY: dict[str, tuple[str, str | None]] = {
    "LayerReport": ("report", "LayerReport"),
    "LinearBF16": ("linear_bf16", "LinearBF16"),
    "LinearW4A16": ("layers", "LinearW4A16"),
    "LinearW8A8FP": ("layers", "LinearW8A8FP"),
    "LinearW8A8INT": ("layers", "LinearW8A8INT"),
    "QuantizedLinear": ("layers", "QuantizedLinear"),
    "Recipe": ("recipes", "Recipe"),
    "Report": ("report", "Report"),
    "Scheme": ("schemes", "Scheme"),
    "__version__": ("_C", "version"),
    "accelerate": ("checkpoint", "accelerate"),
    "algorithms": ("algorithms", None),
    "benchmark": ("benchmark", None),
    "calibration": ("calibration", None),
    "evaluate": ("evaluate", None),
    "explain": ("explain", "explain"),
    "implementations": ("explain", "implementations"),
    "load": ("checkpoint", "load"),
    "money": ("money", None),
    "ops": ("ops", None),
    "quantize": ("quantize", "quantize"),
    "recommend": ("recommend.advice", "recommend"),
    "report": ("report.page", "report"),
    "save": ("checkpoint", "save"),
    "scheme": ("schemes", "scheme"),
    "sensitivity": ("evaluate.sensitivity", "sensitivity"),
    "study": ("study", None),
    "testing": ("testing", None),
    "use_cases": ("use_cases", None),
}

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "EvaluationError",
    "LayerReport",
    "LinearBF16",
    "LinearW4A16",
    "LinearW8A8FP",
    "LinearW8A8INT",
    "MeasurementError",
    "PennyweightError",
    "QuantizedLinear",
    "Recipe",
    "Report",
    "Scheme",
    "ShapeError",
    "UnsupportedError",
    "__version__",
    "accelerate",
    "algorithms",
    "benchmark",
    "calibration",
    "evaluate",
    "explain",
    "implementations",
    "load",
    "money",
    "ops",
    "quantize",
    "recommend",
    "report",
    "save",
    "scheme",
    "sensitivity",
    "study",
    "testing",
    "use_cases",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pennyweight' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    found = importlib.import_module(f"pennyweight.{module}")
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


class _Package(ModuleType):
    """Importing a submodule sets it as an attribute here; it must not hide a function of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _LAZY.get(name, (name, None))[1] is not None:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
