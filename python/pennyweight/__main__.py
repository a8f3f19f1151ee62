# SPDX-License-Identifier: Apache-2.0
"""``python -m pennyweight`` is the command ``pennyweight``."""

import sys

from pennyweight.cli import main

sys.exit(main())
