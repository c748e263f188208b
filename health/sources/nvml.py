"""The facts of `gpu_query` from the driver's own library, in the words of nvidia-smi: the checks see no difference.

NVML has no limit of time and may end the process that calls it, so `told` runs in a child that can be given up, like a
command.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from trainmaster.health.check import Completed, SourceFault
from trainmaster.health.gpu_values import RETURNS
from trainmaster.health.nvml_fields import FIELDS, NO_FUNCTION, OLDER, Call, word
from trainmaster.health.record import Any


def told(path: str, wanted: Sequence[str]) -> str:
    """What the library at `path` says of the `wanted` fields of every GPU: a JSON list of rows, as `gpus` reads it.

    To be run in a child. What a library does not know is [N/A], as with nvidia-smi. Raises OSError without a library,
    and SourceFault when it does not start or a GPU has no handle.
    """
    import ctypes  # 2 ms, which only this child pays

    library = ctypes.CDLL(path)

    def ask(name: str, *arguments: Any) -> int:
        try:
            function = getattr(library, name)
        except AttributeError:
            return NO_FUNCTION
        return int(function(*arguments))

    def must(name: str, *arguments: Any, of: str = "") -> None:
        code = ask(name, *arguments)
        if code:
            raise SourceFault(f"{of}{name} returned {code}: {RETURNS.get(code, 'unknown')}")

    def results(device: Any, call: Call) -> tuple[int, tuple[Any, ...]]:
        buffers = [ctypes.create_string_buffer(struct.calcsize("=" + layout)) for layout in call.results]
        if call.first is not None:
            struct.pack_into("=I", buffers[0], 0, call.first)
        numbers = [ctypes.c_uint(number) for number in call.before], [ctypes.c_uint(number) for number in call.after]
        code = ask(call.function, device, *numbers[0], *buffers, *numbers[1])
        found = zip(call.results, buffers)  # noqa: B905 - as in record.py
        return code, tuple(value for layout, buffer in found for value in struct.unpack("=" + layout, buffer))

    must("nvmlInit_v2")
    version, number = ctypes.create_string_buffer(96), ctypes.c_uint()
    must("nvmlSystemGetDriverVersion", version, ctypes.c_uint(96))
    must("nvmlDeviceGetCount_v2", ctypes.byref(number))
    rows = []
    for index in range(number.value):
        device = ctypes.c_void_p()
        must("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device), of=f"GPU {index}: ")
        row = {"index": str(index), "driver_version": version.value.decode(errors="replace")}
        known: dict[Call, tuple[int, tuple[Any, ...]]] = {}
        for field in wanted:
            calls, say = FIELDS.get(field, ((), str))
            code, values = NO_FUNCTION, ()
            for call in calls:
                if call not in known:
                    known[call] = results(device, call)
                code, values = known[call]
                if code not in OLDER:
                    break
            row.setdefault(field, word(code) if code else say(values))
        rows.append(row)
    ask("nvmlShutdown")
    return json.dumps(rows)


def gpus(done: Completed) -> list[dict[str, str]]:
    """The rows that `told` printed. Pure; raises SourceFault when it ended otherwise."""
    if done.code:
        how = f"ended by signal {-done.code}" if done.code < 0 else "failed"
        raise SourceFault(f"NVML {how}: {' '.join(done.err.split())[:160]}".rstrip(": "))
    rows: list[dict[str, str]] = json.loads(done.out)
    return rows
