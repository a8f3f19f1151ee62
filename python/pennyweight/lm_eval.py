# SPDX-License-Identifier: Apache-2.0
"""lm-eval's own command line, with our models in it.

python -m pennyweight.lm_eval run --model pennyweight --model_args pretrained=DIR --tasks arc_easy,wikitext

lm-eval looks for no plug-ins, so its command has to be started from here. `pretrained` is a folder, quantized (its
layers run on our kernels) or not; every other argument is lm-eval's. Needs the extra "lm-eval".
"""

from __future__ import annotations

import importlib.util
import sys

from pennyweight.errors import PennyweightError

INSTALL = 'pip install "pennyweight[lm-eval]"'


def main() -> int:
    """Register the model `pennyweight` and run lm-eval's command line on the process's arguments."""
    if importlib.util.find_spec("lm_eval") is None:
        print(f"pennyweight: lm-eval is not installed; run: {INSTALL}", file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate

    import pennyweight.evaluate.language_models  # noqa: F401  it registers the model

    try:
        cli_evaluate()
    except PennyweightError as error:
        print("pennyweight: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
