"""The deep checks, which load the hardware: jobs run them, and no hook imports them."""

from __future__ import annotations

from trainmaster.health.check import Check
from trainmaster.health.checks import (
    deep_cpu_speed,
    deep_gpu_collective,
    deep_gpu_computes,
    deep_gpu_dcgm,
    deep_gpu_memory,
    deep_gpu_pcie,
    deep_gpu_peers,
    deep_gpu_speed,
    deep_memory_patterns,
    deep_memory_speed,
    deep_storage_data,
    deep_storage_speed,
)

CHECKS: tuple[Check, ...] = (
    deep_gpu_computes.CHECK,
    deep_gpu_memory.CHECK,
    deep_gpu_speed.CHECK,
    deep_gpu_pcie.CHECK,
    deep_gpu_peers.CHECK,
    deep_gpu_collective.CHECK,
    deep_gpu_dcgm.CHECK,
    deep_cpu_speed.CHECK,
    deep_memory_speed.CHECK,
    deep_memory_patterns.CHECK,
    deep_storage_data.CHECK,
    deep_storage_speed.CHECK,
)
