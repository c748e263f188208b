"""What a healthy GPU of a model measures in health/deep/gpu.py: data.

Each is the lowest of several runs on a healthy GPU, by the name that the driver gives it. A site adds its own in the
profile: `{"gpu": {"expected": {"tensor_tflops": 640, …}}}`.
"""

from __future__ import annotations

EXPECTED: dict[str, dict[str, float]] = {
    # One GPU, SXM, 700 W, driver 580.159.04; three runs of four seconds, 2026-11.
    "NVIDIA H100 80GB HBM3": {
        "tensor_tflops": 648.6,
        "memory_copy_gbps": 2776,
        "memory_write_gbps": 3178,
        "memory_read_gbps": 3061,
    },
}
