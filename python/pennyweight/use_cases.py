# SPDX-License-Identifier: Apache-2.0
"""What a model is used for, as numbers of tokens: a prompt's (prefill) and an answer's (decode).

    from pennyweight import use_cases
    use_cases.use_case("rag")                  # UseCase(name='rag', prefill=1024, decode=128, ...)
    use_cases.use_case("rag").scaled(0.1)      # prefill 102, decode 13: for a small machine
    use_cases.STUDY                            # the study's seven, as its Tables 5 and 6 have them

A prompt much longer than its answer is bound by arithmetic, a long answer by how fast the weights are read: which
format is fastest hangs on the ratio of the two.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pennyweight.errors import MeasurementError

_STUDY = "arXiv 2411.02355 (Give Me BF16 or Give Me Death?), use cases of Tables 5 and 6"
_CARDS = "model cards of the study's authors (DeepSeek-R1-Distill, 2025); not in the study"


@dataclass(frozen=True)
class UseCase:
    """A kind of query.

    Attributes:
        name: For instance "rag".
        prefill: Tokens of the prompt.
        decode: Tokens of the answer.
        source: Where the two come from.
        scale: By what `scaled` multiplied the lengths of that source.
    Raises:
        MeasurementError: A length is no whole number of one or more.
    """

    name: str
    prefill: int
    decode: int
    source: str = "given by the user"
    scale: float = 1.0

    def __post_init__(self) -> None:
        for what in ("prefill", "decode"):
            value = getattr(self, what)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise MeasurementError(
                    f"use case {self.name}: {what} must be a whole number of tokens, 1 or more; got {value!r}"
                )

    @property
    def tokens(self) -> int:
        """Of prompt and answer together."""
        return self.prefill + self.decode

    def scaled(self, factor: float) -> UseCase:
        """Return it with both lengths multiplied, rounded, and never below one token.

        Raises:
            MeasurementError: The factor is not above 0 and at most 1.
        """
        if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor <= 1:
            raise MeasurementError(f"scale must be above 0 and at most 1; got {factor!r}")
        return UseCase(
            self.name,
            max(1, round(self.prefill * factor)),
            max(1, round(self.decode * factor)),
            self.source,
            self.scale * factor,
        )


#: The study's seven, in its order.
STUDY = (
    UseCase("code-completion", 256, 1024, _STUDY),
    UseCase("docstring-generation", 768, 128, _STUDY),
    UseCase("code-fixing", 1024, 1024, _STUDY),
    UseCase("rag", 1024, 128, _STUDY),
    UseCase("instruction-following", 256, 128, _STUDY),
    UseCase("multi-turn-chat", 512, 256, _STUDY),
    UseCase("summarization", 4096, 512, _STUDY),
)
#: All that have a name here.
ALL = (*STUDY, UseCase("large-rag", 10240, 1536, _CARDS))


def names() -> list[str]:
    """Return the names of all use cases."""
    return [case.name for case in ALL]


def use_case(name: str) -> UseCase:
    """Return the use case of this name; case, spaces and underscores are not minded.

    Raises:
        MeasurementError: There is none; the text has the nearest names.
    """
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    for case in ALL:
        if case.name == plain:
            return case
    near = difflib.get_close_matches(plain, names(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise MeasurementError(f"use case '{name}' is not known; {hint}All: {', '.join(names())}")
