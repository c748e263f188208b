"""What a job runs: a program's command line or a pickled call. Both are checked before anything is submitted."""

import os
import pickle
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster.errors import UsageError
from trainmaster.launcher.submit.interpreter import words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command that every rank runs."""

    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name for the job: that of the script, or of the program."""
        script = script_of(self.argv)
        return Path(self.argv[0] if script is None else script).stem or "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A Python call, as the bytes that a rank unpickles."""

    name: str
    pickled: bytes


Target = Program | Call

_EXAMPLE = 'on a command line: -- python train.py; in Python: ["python", "train.py"]'

_INTERPRETER = re.compile(r"python(?:\d+(?:\.\d+)*)?|bash|sh")
# Options of Python that take their value as the next word.
_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})


def program(
    command: str | Path | Sequence[str | Path],
    *args: object,
    python: str,
    on_path_only_later: bool = False,
    in_image: bool = False,
) -> Program:
    """A program from one string (split as a shell would), a path, or a list of words.

    Args:
        command: What to run.
        args: Further words.
        python: The interpreter that runs a `.py` file given as the program itself.
        on_path_only_later: Do not look for the program on this machine's PATH, since setup lines may change PATH.
        in_image: The job has a container, so what is here says nothing: neither files nor `python`.

    Raises UsageError when there is nothing to run, or the program or script is not there.
    """
    if isinstance(command, str):
        words = _split(command)
    elif isinstance(command, Path):
        words = [str(command)]
    else:
        words = [str(word) for word in command]
    words += [str(word) for word in args]
    if not words or not words[0]:
        raise UsageError("there is no program to run: the command is empty", hint=_EXAMPLE)
    if any("\0" in word for word in words):
        raise UsageError(f"the command {words!r} holds a NUL byte, which no program can be given")
    if words[0].endswith(".py") and (in_image or not os.access(words[0], os.X_OK)):
        words[0:0] = ("python3",) if in_image else words_of(python)
    found = Program(argv=tuple(words))
    if not in_image:
        _check(found, on_path_only_later)
    return found


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"could not split {command!r} into words: {error}", hint="give the program as a list of words"
        ) from None


def script_of(argv: Sequence[str]) -> str | None:
    """The file that an interpreter is told to run; None when the program is none, or is given a module or text."""
    if not _INTERPRETER.fullmatch(Path(argv[0]).name):
        return None
    words = iter(argv[1:])
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif re.match(r"-[A-Za-z]*[cm]", word) or word == "-":
            return None
        elif not word.startswith("-"):
            return word
    return None


def _check(found: Program, on_path_only_later: bool) -> None:
    first = found.argv[0]
    if "/" in first:
        if not Path(first).is_file():
            raise _missing("program", first)
        if not os.access(first, os.X_OK):
            raise UsageError(f"could not run {first}: it is not executable", hint=f"chmod +x {shlex.quote(first)}")
    elif shutil.which(first) is None and not on_path_only_later:
        raise UsageError(
            f"could not find the program {first!r} on PATH ({os.environ.get('PATH', '')})",
            hint="give its path, or the `setup` lines that put it on PATH on the nodes",
        )
    script = script_of(found.argv)
    if script is not None and not Path(script).is_file():
        raise _missing("script", script)


def _missing(what: str, path: str) -> UsageError:
    seen = "is a folder" if Path(path).is_dir() else "does not exist"
    return UsageError(
        f"could not find the {what} {path}: {Path(path).absolute()} {seen} (working folder: {Path.cwd()})",
        hint="the job runs in the working folder that it was submitted from; give a path that holds there",
    )


def script_folder() -> tuple[str, ...]:
    """The folder of the script that this process runs, where Python looks for what it imports; none of `python -m`."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not file or getattr(main, "__spec__", None) is not None:
        return ()
    return (str(Path(file).resolve().parent),)


# What pickling raises for objects that it cannot take; __reduce__ methods add the last two.
_PICKLE_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError)


def name_of(function: Callable[..., Any]) -> str:
    """A name for the job that calls `function`."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return "call" if name == "<lambda>" else str(name)


def pickled_call(delayed: Any) -> Call:
    """A submitit DelayedSubmission as bytes. Raises UsageError that names the part that cannot be pickled."""
    import cloudpickle

    try:
        pickled = cloudpickle.dumps(delayed, pickle.HIGHEST_PROTOCOL)
    except _PICKLE_ERRORS as error:
        culprit = next(_unpicklable(delayed), None)
        what = f"{culprit}: {error}" if culprit else str(error)
        raise UsageError(
            f"could not pickle the call of {name_of(delayed.function)!r}: {what}",
            hint="open files, locks, loggers' handlers, generators, CUDA tensors and connections cannot travel; "
            "make them inside the function, or pass a path or a name instead",
        ) from error
    return Call(name=name_of(delayed.function), pickled=pickled)


def _unpicklable(delayed: Any) -> Iterator[str]:
    """Names of the parts that cannot be pickled, the most telling first."""
    for index, value in enumerate(delayed.args):
        if not _picklable(value):
            yield f"argument {index} ({type(value).__name__})"
    for key, value in delayed.kwargs.items():
        if not _picklable(value):
            yield f"argument {key!r} ({type(value).__name__})"
    function = delayed.function
    for name, value in _captured(function).items():
        if not _picklable(value):
            yield f"the variable {name!r} ({type(value).__name__}), which the function uses"
    if not _picklable(function):
        yield f"the function itself ({type(function).__name__})"


def _captured(function: Any) -> Mapping[str, Any]:
    """What a function takes along: closure cells, globals that it names, attributes of a callable object."""
    import inspect

    code = getattr(function, "__code__", None)
    if code is None:
        return getattr(function, "__dict__", {})
    try:
        variables = inspect.getclosurevars(function)
    except (ValueError, TypeError):  # an empty cell, or something that only looks like a function
        return {}
    return {**variables.nonlocals, **variables.globals}


def _picklable(value: object) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except _PICKLE_ERRORS:
        return False
    return True
