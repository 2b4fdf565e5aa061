"""Names in the overlay's module, and upstream's line length."""

MODULE = "sglang.srt.layers.quantization.bpreshuffle_scale"
ADAPTER, TO_GEMM = "quant_pretransposed_scale", "x_scale_for_gemm"
WIDTH = 88
