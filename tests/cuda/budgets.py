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
_COPIES = ("LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "STG.E.128")
_INT8 = ("IMMA.16832.S8.S8", *_COPIES)
# Before sm_89 these are empty, on sm_90 the instruction is one of 16 bits.
_FP8 = {"sm_89": ("QMMA.16832.F32.E4M3.E4M3", *_COPIES), "sm_90a": ("HMMA", *_COPIES)}

# 168 is all that 384 threads can have; kernels move registers from the threads that copy to those that multiply.
_SM90 = ("USETMAXREG", "WARPGROUP", "STSM.16", "UTMASTG", "UTMALDG")
_SM90_MULTIPLIES = ("IGMMA.64x{}x32.S8.S8", "QGMMA.64x{}x32.F32.E4M3.E4M3")


def _sm90(codes: int, rows: int, tile: str, columns: int, copies: str = "UTMALDG.3D.MULTICAST") -> Budget:
    """Of the GEMM tiles of Hopper: INT8 (0) or FP8 (1) codes, rows are tokens (0) or outputs (1)."""
    return Budget(
        f"Codes){codes}, (pennyweight::cuda::Rows){rows}, {tile}, ",
        168,
        (_SM90_MULTIPLIES[codes].format(columns), copies, *_SM90),
        lacks=("HMMA", "IMMA", "QMMA", "CALL"),
    )


BUDGETS = [
    Budget("nothing", 16),
    *[
        Budget(f"Codes)0, false, {rows},", registers, _INT8, lacks=("HMMA", "LDS."))
        for rows, registers in {16: 96, 64: 136, 128: 208}.items()
    ],
    *[
        Budget(
            f"Codes)1, {exact}, {rows},",
            {"sm_80": 16, "sm_86": 16, "sm_89": registers, "sm_90a": on_sm_90},
            _FP8 if on_sm_90 > 16 else {"sm_89": _FP8["sm_89"]},
            lacks=("IMMA", "LDS."),
        )
        for exact, rows, registers, on_sm_90 in (
            ("true", 16, 104, 184),
            ("false", 64, 136, 255),
            ("true", 64, 192, 255),
            ("false", 128, 208, 16),
            ("true", 128, 192, 255),
        )
    ],
    *[
        Budget(
            f"W8A16Tile<(pennyweight::cuda::Half){half}, {tokens}, ",
            registers,
            (mma, "LDGSTS.E.BYPASS.128", "LDS.128", "LDS.64"),
            lacks=("IMMA",),
        )
        for half, mma in enumerate(("HMMA.16816.F32", "HMMA.16816.F32.BF16"))
        for tokens, registers in {16: 96, 64: 112, 128: 160}.items()
    ],
    Budget("decode_codes_sm80", 32, ("LDG.E.64.CONSTANT", "STG.E.128")),
    *[
        Budget(
            f"W4Tile<(pennyweight::cuda::Half){half}, {tokens}, ",
            registers,
            (mma, "LDGSTS.E.BYPASS.128", "LDS.128"),
            lacks=("IMMA",),
        )
        for half, mma in enumerate(("HMMA.16816.F32", "HMMA.16816.F32.BF16"))
        for tokens, registers in {8: 104, 16: 128, 32: 168, 64: 176, 128: 240}.items()
    ],
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
    Budget("add_splits_sm80<", 64, ("LDG.E.NA.128", "STG.E.128")),
    # What is once packed: 16 bytes at a time on the side of the weight.
    Budget("copy_code_rows", 40, ("LDG.E.128", "STG.E.128")),
    Budget("dequantize_code_rows", 48, ("LDG.E.64", "STG.E.128")),
    Budget("unpack_int4_panels", 48, ("LDG.E.NA.128", "STG.E.64")),
    Budget("pack_int4_panels", 48, ("LDG.E.64", "STG.E.128")),
    Budget("decode_int4_panels", 56, ("LDG.E.NA.128", "STG.E.128")),
    Budget("unpack_nibble_words", 32, ("STG.E.64",)),
    Budget("pack_nibble_words", 40, ("LDG.E.64",)),
    *[
        _sm90(codes, *tile)
        for codes in (0, 1)
        for tile in (
            (1, "64, 16", 16, "UTMALDG"),  # alone: nothing to share
            (1, "64, 32", 32),
            (1, "64, 64", 64),
            (0, "64, 128", 128),
            (0, "128, 128", 128),
            (0, "128, 256", 256),
        )
    ],
    _sm90(1, 0, "256, 128", 128),
    Budget("Format)2, ", 128, ("LDG.E",)),  # RMSNorm alone: no amax to reduce
    Budget("quantize_rows<", 128, ("REDUX",)),
]
