"""List the failures of workers that every engine on CUDA and PyTorch shows in equal words."""

from __future__ import annotations

from tune.spec.failure import FailureRule

GPU_MEMORY = FailureRule(
    name="gpu_memory",
    pattern=r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
    cause="configuration",
    meaning="the GPU memory does not suffice",
    next_step="Give the pool more GPUs a worker, a smaller batch or fewer tokens, or leave less memory to "
    "the KV cache.",
    source="PyTorch, torch/cuda (OutOfMemoryError); CUDA, cuda.h and driver_types.h",
)
