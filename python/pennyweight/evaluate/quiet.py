# SPDX-License-Identifier: Apache-2.0
"""lm-eval without what it says of its own workings."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import datasets as hf_datasets


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's bars, prints and remarks on its own workings from the terminal; errors come through."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = hf_datasets.are_progress_bars_disabled()
    hf_datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            hf_datasets.enable_progress_bars()
