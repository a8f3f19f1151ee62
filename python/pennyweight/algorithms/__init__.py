# SPDX-License-Identifier: Apache-2.0
"""How weights are found: each algorithm a function on tensors, usable alone.

scales        minmax, mse           weight -> scale (N, K / group_size)
rtn           quantize_weight       weight, scale -> codes, each rounded to the nearest
gptq          quantize_weight       weight, Hessian, scale -> codes, errors handed on to later columns
smoothquant   scales, fold          activation range, weights -> what moves from activations to weights
"""

from pennyweight.algorithms import gptq, rtn, scales, smoothquant

__all__ = ["gptq", "rtn", "scales", "smoothquant"]
