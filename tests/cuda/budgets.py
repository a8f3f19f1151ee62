# SPDX-License-Identifier: Apache-2.0
"""What the machine code of each kernel may need and must contain, per architecture."""

from dataclasses import dataclass, field


@dataclass
class Budget:
    """Of all kernels whose demangled name contains ``kernel``.

    Attributes:
        kernel: Part of the name.
        registers: The most per thread, on every architecture or by architecture ("sm_80").
        contains: Instructions (prefixes of SASS opcodes) that must be there, on every architecture or by architecture.
        lacks: Instructions that must not be there. Local memory (LDL, STL) and a stack are refused in every kernel.
    """

    kernel: str
    registers: int | dict[str, int]
    contains: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    lacks: tuple[str, ...] = field(default=())


ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a"]

# Every copy of 16 bytes beside the arithmetic and past L1, fragments 16 bytes at a time.
_INT8 = ("IMMA.16832.S8.S8", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "LDS.128", "STG.E.128")

BUDGETS = [
    Budget("nothing", 16),
    Budget("Int8Tile<16,", 88, _INT8, lacks=("HMMA",)),
    Budget("Int8Tile<64,", 160, _INT8, lacks=("HMMA",)),
    Budget("Int8Tile<128,", 232, _INT8, lacks=("HMMA",)),
    *[
        Budget(
            f"Half){half}, {tokens}, ", registers, (mma, "LDGSTS.E.BYPASS.128", "LDS.128"), lacks=("IMMA",)
        )
        for half, mma in enumerate(("HMMA.16816.F32", "HMMA.16816.F32.BF16"))
        for tokens, registers in {8: 104, 16: 128, 32: 168, 64: 176, 128: 240}.items()
    ],
    Budget("linear_w4a16_sum", 64, ("LDG.E.NA.128", "STG.E.128")),
    Budget("gemm_w8a8_int8_sum", 64, ("LDG.E.NA.128", "STG.E.128")),
    *[
        Budget(
            f"hessian_accumulate_sm80<(pennyweight::DType){dtype}>",
            248,
            (mma, "LDSM.16.MT88.4", "LDGSTS.E.BYPASS.128"),
        )
        for dtype, mma in {1: "HMMA.16816.F32", 2: "HMMA.16816.F32.BF16"}.items()
    ],
    Budget("hessian_pieces<", 48, ("LDG.E", "STG.E.128")),
    Budget("hessian_sum", 40, ("LDG.E",)),
    Budget("gptq_columns", 64, ("SHFL.IDX", "LDS")),  # 16 warps of two blocks
    Budget("weight_min_max", 48, ("REDUX",)),
    Budget("weight_steps<", 96, ("SHFL.BFLY", "ATOMS.OR")),
    Budget("weight_best", 64),
    Budget("quantize_weights<", 64, ("LDG.E",)),
    Budget("column_slices<", 96, ("LDG.E", "STS")),
    Budget("column_fold", 40),
    Budget("smooth_columns", 64),
    # What is once packed: 16 bytes at a time on the side of the weight.
    Budget("copy_code_rows", 40, ("LDG.E.128", "STG.E.128")),
    Budget("dequantize_code_rows", 48, ("LDG.E.64", "STG.E.128")),
    Budget("unpack_int4_panels", 48, ("LDG.E.NA.128", "STG.E.64")),
    Budget("pack_int4_panels", 48, ("LDG.E.64", "STG.E.128")),
    Budget("decode_int4_panels", 56, ("LDG.E.NA.128", "STG.E.128")),
    Budget("unpack_nibble_words", 32, ("STG.E.64",)),
    Budget("pack_nibble_words", 40, ("LDG.E.64",)),
    Budget("Format)2, ", 128, ("LDG.E",)),  # RMSNorm alone: no amax to reduce
    Budget("quantize_rows<", 128, ("REDUX",)),
]
