"""The speed that a GPU reaches at most: dense matrix products in 16 bits, without sparsity."""

from __future__ import annotations

#: TFLOP/s in bfloat16 as the makers publish them, by what torch calls the GPU; the first that fits counts.
TFLOP_PER_S = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 6000 Ada": 364.2,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "RTX A6000": 154.8,
}


def peak_tflop_per_s(gpu: str) -> float | None:
    """The peak of a GPU with the name that torch gives it; None if it is not known."""
    words = f" {gpu.replace('-', ' ')} "
    return next((peak for name, peak in TFLOP_PER_S.items() if f" {name} " in words), None)


def mfu(tflop_per_s: float, gpu: str | None, dtype: str) -> float | None:
    """Share of the peak that was used, with work in 16 bits; None where no peak is known for GPU or dtype."""
    peak = None if gpu is None or dtype not in ("bfloat16", "float16") else peak_tflop_per_s(gpu)
    return None if peak is None else tflop_per_s / peak
