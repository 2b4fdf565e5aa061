"""What a kernel is, by the names that ROCm and CUDA give it, mangled and not."""

from __future__ import annotations

import pytest

from gatekit.traces.kernels import Kind, kind_of, reads_scale, short

_LAMBDAS = "{lambda()#3}::operator()() const::{lambda()#7}::operator()() const"
_NAMES = {
    # The relayout itself: demangled, as SGLang's profiler writes it; mangled; CUDA's.
    "void at::native::elementwise_kernel_manual_unroll<128, 8, at::native::"
    "gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)"
    f"::{_LAMBDAS}>(at::TensorIteratorBase&)>": Kind.DIRECT_COPY,
    "_ZN2at6native18elementwise_kernelILi128ELi4EZNS0_22gpu_kernel_impl_nocastIZZZNS0_"
    "23direct_copy_kernel_cudaERNS_18TensorIteratorBaseEENKUlvE1_clEvE.kd": (
        Kind.DIRECT_COPY
    ),
    "_ZN2at6native27unrolled_elementwise_kernelIZZZNS0_23direct_copy_kernel_cudaE": (
        Kind.DIRECT_COPY
    ),
    # Other copies.
    "Memcpy DtoD (Device -> Device)": Kind.OTHER_COPY,
    "Memcpy PtoP (Device -> Device)": Kind.OTHER_COPY,
    "Memcpy Unknown (Unknown -> Unknown)": Kind.OTHER_COPY,
    "CopyDeviceToDevice": Kind.OTHER_COPY,
    "MEMORY_COPY_DEVICE_TO_DEVICE": Kind.OTHER_COPY,
    "__amd_rocclr_copyBufferRectAligned.kd": Kind.OTHER_COPY,
    "_ZN2at6native12_GLOBAL__N_119CatArrayBatchedCopyINS1_10OpaqueTypeILj4EEEjLi2E": (
        Kind.OTHER_COPY
    ),
    "void at::native::(anonymous namespace)::CatArrayBatchedCopy_contig<x, 4>": (
        Kind.OTHER_COPY
    ),
    "_ZN2at6native27unrolled_elementwise_kernelIZZZNS0_24bfloat16_copy_kernel_cudaE": (
        Kind.OTHER_COPY
    ),
    "triton_poi_fused__to_copy_0": Kind.OTHER_COPY,
    "triton_poi_fused_clone_3": Kind.OTHER_COPY,
    "triton_poi_fused_copy_1": Kind.OTHER_COPY,
    "triton_poi_fused_transpose_view_2": Kind.OTHER_COPY,
    "void transpose_scale_kernel<float>(float*, float const*, int, int)": (
        Kind.OTHER_COPY
    ),
    # Copies to and from the host are not relayouts.
    "Memcpy HtoD (Pinned -> Device)": Kind.TRANSFER,
    "Memcpy DtoH (Device -> Host)": Kind.TRANSFER,
    "Memset (Device)": Kind.TRANSFER,
    # Kernels with such a word among their options.
    "_fused_rms_fp8_group_quant_kernel_TRANSPOSE_SCALE_1": Kind.NORM_QUANT,
    "_fused_flatten_fp8_group_quant_kernel": Kind.NORM_QUANT,
    "_gemm_a8w8_blockscale_kernel_GROUP_K_128_transpose_0": Kind.GEMM,
    "_gemm_a8w8_blockscale_reduce_kernel_BLOCK_SIZE_M_32": Kind.GEMM_PART,
    "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT64x32x256_MI16x16x1": Kind.GEMM,
    "_ZN2ck49kernel_gemm_xdl_cshuffle_v3_multi_d_blockscale_b_preshuffleINS_": (
        Kind.GEMM
    ),
    "void cutlass::device_kernel<flash::FlashAttnFwdSm90<x> >(x)": Kind.ATTENTION,
    "_ZN5aiter25mla_decode_stage1_asm_fwdE": Kind.ATTENTION,
    "store_kvcache": Kind.OTHER,
}


@pytest.mark.parametrize("name", _NAMES, ids=lambda name: name[:60])
def test_kinds(name: str) -> None:
    assert kind_of(name) is _NAMES[name]


@pytest.mark.parametrize(
    "name",
    [
        "_ZN2ck49kernel_gemm_xdl_cshuffle_v3_multi_d_blockscale_b_preshuffleINS_",
        "void ck::kernel_gemm_xdl_cshuffle_v3_multi_d_blockscale_b_preshuffle<x>(x)",
        "_gemm_a8w8_blockscale_kernel_GROUP_K_128",
    ],
)
def test_gemms_that_read_a_scale(name: str) -> None:
    assert reads_scale(name)
    assert not reads_scale("Cijk_Alik_Bljk_BBS_BH_MT64x32x256")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (name, "direct_copy_kernel")
        for name, kind in _NAMES.items()
        if kind is Kind.DIRECT_COPY
    ]
    + [
        (
            "_ZN2at6native12_GLOBAL__N_119CatArrayBatchedCopyINS1_",
            "CatArrayBatchedCopy",
        ),
        ("void at::native::(anonymous namespace)::Cat<x<y>, 4>(int)", "Cat"),
        ("Cijk_Alik_Bljk_BBS_MT64x32x256_MI16", "Cijk MT64x32x256"),
        ("_Z", "_Z"),
        ("", ""),
    ],
    ids=lambda text: text[:40],
)
def test_short_names(name: str, expected: str) -> None:
    assert short(name) == expected
