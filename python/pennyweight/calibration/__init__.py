# SPDX-License-Identifier: Apache-2.0
"""Calibration data: token ids (n, length), from wherever they come.

from_texts, from_messages, from_dataset    tokenized, shuffled with a seed, packed to rows of full length
from_ids, from_file                        ids as they are; files of texts or of ids
random                                     uniform ids: enough for 8 bits, too little for 4 (the study's
finding)
"""

from pennyweight.calibration.files import from_file
from pennyweight.calibration.rows import DEFAULT_LENGTH, DEFAULT_SAMPLES, Calibration, from_ids, random
from pennyweight.calibration.texts import from_dataset, from_messages, from_texts

__all__ = [
    "DEFAULT_LENGTH",
    "DEFAULT_SAMPLES",
    "Calibration",
    "from_dataset",
    "from_file",
    "from_ids",
    "from_messages",
    "from_texts",
    "random",
]
