# SPDX-License-Identifier: Apache-2.0
"""Results that show themselves: in a terminal, in a notebook, as a dictionary with stable keys."""

from pennyweight.report.quantization import LayerReport, Report

__all__ = ["LayerReport", "Report"]
