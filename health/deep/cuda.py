"""The little of CUDA's driver API that the deep checks need, through ctypes: no toolkit, no torch, only the driver.

One thread, one stream; of several GPUs in one process, `use` says which one is meant. Standard library only; runs with
`python3 -I -S`, also on Python 3.9. Source of the names and numbers: cuda.h of CUDA 12.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

ATTRIBUTE_MULTIPROCESSORS = 16
ATTRIBUTE_CAPABILITY_MAJOR = 75
ATTRIBUTE_CAPABILITY_MINOR = 76


class CudaError(Exception):
    """The driver said no."""


class Gpu:
    """A context on one GPU, with the kernels of a PTX text."""

    def __init__(self, index: int, ptx: bytes) -> None:
        """Raises CudaError, and OSError where there is no driver."""
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._device = device
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self._module), ctypes.c_char_p(ptx))

    def _call(self, name: str, *args: Any) -> None:
        code = getattr(self._driver, name)(*args)
        if code:
            words = ctypes.c_char_p()
            self._driver.cuGetErrorName(code, ctypes.byref(words))
            raise CudaError(f"{name}: {(words.value or b'unknown error').decode()} ({code})")

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    @property
    def multiprocessors(self) -> int:
        """How many."""
        return self._attribute(ATTRIBUTE_MULTIPROCESSORS)

    @property
    def capability(self) -> tuple[int, int]:
        """(9, 0) for an H100."""
        return self._attribute(ATTRIBUTE_CAPABILITY_MAJOR), self._attribute(ATTRIBUTE_CAPABILITY_MINOR)

    @property
    def name(self) -> str:
        """As nvidia-smi calls it."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, 256, self._device)
        return text.value.decode(errors="replace")

    @property
    def bus_id(self) -> str:
        """The PCI address, as the kernel writes it: 0000:0f:00.0."""
        text = ctypes.create_string_buffer(32)
        self._call("cuDeviceGetPCIBusId", text, 32, self._device)
        return text.value.decode().lower()

    @property
    def free_bytes(self) -> int:
        """Memory that nobody holds."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def use(self) -> None:
        """What follows is of this GPU; only needed where a process has opened several."""
        self._call("cuCtxSetCurrent", self._context)

    def reaches(self, other: Gpu) -> bool:
        """Whether this GPU can read and write the other's memory by itself; if so, it may from now on."""
        able = ctypes.c_int()
        self._call("cuDeviceCanAccessPeer", ctypes.byref(able), self._device, other._device)
        if able.value:
            self.use()
            self._call("cuCtxEnablePeerAccess", other._context, 0)
        return bool(able.value)

    def to_peer(self, other: Gpu, target: int, source: int, size: int) -> None:
        """Begin to copy from this GPU's memory to the other's."""
        into = (ctypes.c_uint64(target), other._context)
        self._call("cuMemcpyPeerAsync", *into, ctypes.c_uint64(source), self._context, ctypes.c_size_t(size), None)

    def take(self, size: int) -> int:
        """Memory of the GPU, by its address; `give_back` ends it."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def give_back(self, address: int) -> None:
        """Free what `take` took."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def take_pinned(self, size: int) -> int:
        """Memory of the host that the GPU can read by itself."""
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(size))
        assert address.value is not None
        return address.value

    def give_back_pinned(self, address: int) -> None:
        """Free what `take_pinned` took."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def to_gpu(self, address: int, pinned: int, size: int) -> None:
        """Begin to copy from the host."""
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(pinned), ctypes.c_size_t(size), None
        )

    def to_host(self, pinned: int, address: int, size: int) -> None:
        """Begin to copy to the host."""
        self._call(
            "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(pinned), ctypes.c_uint64(address), ctypes.c_size_t(size), None
        )

    def write(self, address: int, data: bytes) -> None:
        """Copy bytes to the GPU and wait."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_char_p(data), ctypes.c_size_t(len(data)))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the GPU, after all that was begun."""
        data = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", data, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return data.raw

    def launch(self, kernel: str, blocks: int, threads: int, args: Sequence[Any]) -> None:
        """Begin a kernel; `args` are ctypes values."""
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), self._module, kernel.encode())
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(arg) for arg in args))
        self._call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, None, pointers, None)

    def event(self) -> ctypes.c_void_p:
        """A mark in the stream, to be timed with `elapsed_s`."""
        mark = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(mark), 0)
        self._call("cuEventRecord", mark, None)
        return mark

    def elapsed_s(self, begin: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Wait for `end`; seconds of the GPU's own clock since `begin`. Both marks are used up."""
        self._call("cuEventSynchronize", end)
        milliseconds = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        for mark in (begin, end):
            self._call("cuEventDestroy_v2", mark)
        return milliseconds.value / 1000

    def close(self) -> None:
        """Give the context back, and all memory with it."""
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)
