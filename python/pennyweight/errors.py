# SPDX-License-Identifier: Apache-2.0
"""What pennyweight raises. Every message says what was wrong, with its numbers, and what to do."""


class PennyweightError(Exception):
    """Base of every error that pennyweight raises on purpose."""


class ShapeError(PennyweightError, ValueError):
    """A tensor's shape, dtype or size does not fit the others."""


class UnsupportedError(PennyweightError, NotImplementedError):
    """Nothing here can do what was asked; the text lists each candidate with its reason."""


class DeviceError(PennyweightError, RuntimeError):
    """A card cannot be used, or did not take a launch."""


class CheckpointError(PennyweightError, OSError):
    """A checkpoint cannot be read, is not what it claims, or cannot be written."""


class CalibrationError(PennyweightError, ValueError):
    """Calibration data is missing, too short, or holds NaN or Inf."""


class EvaluationError(PennyweightError, ValueError):
    """A model, a server, data or a result cannot be evaluated as asked."""


class MeasurementError(PennyweightError, ValueError):
    """A use case, a price, a bound or a timing is none, or cannot be measured or advised on as asked."""
