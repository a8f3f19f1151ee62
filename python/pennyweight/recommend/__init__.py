# SPDX-License-Identifier: Apache-2.0
"""Which format to deploy: measurements, the study's tables or a roofline model, turned into ranked advice.

pw.recommend("llama-3.1-70b", "a100", mode="async", use_case="rag", max_latency=5, min_recovery=99)
pw.recommend(measurements=["bench.json", "runs"], mode="sync", use_case="rag")   # your own

workload, offers     what is asked, and what a source knows
measured, printed, modelled     the three sources: your files, the study's tables, the roofline
shapes, gpus, roofline, fit     models, GPUs, the model of their speed, and how it is held against the study
ranking, recovery, crossing, command     what is made of it
"""
