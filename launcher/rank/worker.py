"""What runs inside a rank: a script, a module or a submitted callable. Standard library only, so far as it is ours.

`become` turns a forked process into what a freshly started one would be; `run` runs the task and exits with its code.
"""

import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from trainmaster.launcher.rank import collectives
from trainmaster.launcher.rank.page import Collective, Kind, Page, Section

EXIT_REQUEUE = 75
STACK_SIGNAL = int(signal.SIGRTMIN) + 7
"""Asks a rank for its stacks (`stacks`)."""
STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
VALUE_EVERY_S = 0.25
"""Between two readings of a reported value that is no plain number."""
_read_s: dict[str, float] = {}
_LOOKS = 8
_page: Page | None = None
_page_known = False
_holds_known = False
_stacks_out: Any = None
_looks_left = 0
"""At how many more steps to look whether torch's collectives are there to be wrapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One rank's work, as the agent hands it over."""

    rank: int
    env: dict[str, str]
    """The whole environment."""
    cwd: str
    out: str
    err: str
    argv: list[str]
    """sys.argv; argv[0] is the script's path, or the module's name."""
    kind: str
    """script, module or callable."""
    unbuffered: bool = False
    modules_file: str = ""
    """Where to tell which modules were imported; empty when nobody wants to know."""


def step(number: int, **values: Any) -> None:
    """Tell trainmaster that training step `number` is done. Costs about a microsecond; does nothing outside a job.

    The job's record then shows how far it got, a crash loop is told apart from a run that moves on, and a hang from a
    long step.

    Args:
        number: The step.
        values: What to keep an eye on: `step(n, loss=loss)`. `jobs show` tells the last of them, and a job stops whose
            values stay NaN or infinite. Up to eight names of 32 bytes. A tensor is read four times a second at most,
            since reading one of a GPU waits for it.
    """
    page = _page if _page_known else _open_page()
    if page is not None:
        if values:
            _report(page, values)
        page.step(number)
        if _looks_left:
            _look_for_collectives(page)


def _report(page: Page, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if type(value) is not float:
            if type(value) is not int:
                now = time.monotonic()
                if now - _read_s.get(name, 0.0) < VALUE_EVERY_S:
                    continue
                _read_s[name] = now
            value = float(value)
        page.report(name, value)


def checkpoint_published(number: int) -> None:
    """Tell trainmaster that the checkpoint of a step can be loaded from now on. Does nothing outside a job."""
    page = _page if _page_known else _open_page()
    if page is not None:
        page.saved(number)


def values_are_finite() -> bool:
    """Whether all values are finite that this rank has reported last. True outside a job."""
    page = _page if _page_known else _open_page()
    return page is None or page.is_finite()


def section(name: str) -> Section:
    """A phase that is rightly slower than a step: `with trainmaster.section("evaluate"): ...`.

    How long it may last is learnt from the times before. Does nothing outside a job.

    Args:
        name: at most 32 bytes count.
    """
    return Section(_page if _page_known else _open_page(), name)


def collective() -> Collective:
    """A stretch in which this rank waits for others: `with trainmaster.collective(): ...`. Costs under a microsecond.

    Its time is not held against the rank when slow ones are looked for. torch.distributed's collectives need no mark.
    """
    return Collective(_page if _page_known else _open_page())


def should_checkpoint() -> bool:
    """Whether to save now: call it after `step`, on every rank, in every step; all ranks get the same answer.

    The job is about to lose its nodes, say, or its time. Costs less than a microsecond. False outside a job.
    """
    return _due() != Kind.NOTHING


def should_stop() -> bool:
    """Whether to save and end now, with exit code 75: the job is then requeued, if it may. As `should_checkpoint`."""
    return _due() == Kind.STOP


def _due() -> Kind:
    page = _page if _page_known else _open_page()
    if page is None:
        return Kind.NOTHING
    if not _holds_known:
        _outlive_sigterm(page)
    return page.due()


def _outlive_sigterm(page: Page) -> None:
    """Go on for a while after a SIGTERM, since the order to save comes a moment later.

    Slurm sends SIGTERM to every process of the job when it preempts without notice, and when somebody cancels or
    requeues the job with Slurm's own commands. By itself it would end a rank in the middle of a step. Left alone where
    the program handles it. The agent knows of this by the page, and does not wait for such a rank when it stops one.
    """
    global _holds_known
    _holds_known = True
    ours = os.environ.get("TRAINMASTER_HOLD_S", "")
    if not ours or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    owner = os.getpid()

    def hold(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        # Nobody may have meant the job as a whole; then this rank ends, only later.
        timer = threading.Timer(float(ours), os._exit, args=(128 + number,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, hold)
    # A data loader's workers are ended with SIGTERM by the rank itself.
    os.register_at_fork(after_in_child=lambda: _default_sigterm(hold))
    page.hold()


def _default_sigterm(hold: object) -> None:
    if signal.getsignal(signal.SIGTERM) is hold:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _look_for_collectives(page: Page) -> None:
    """Ranks that talk to each other at all do so in their first steps."""
    global _looks_left
    _looks_left = 0 if collectives.install(page) else _looks_left - 1


def _open_page() -> Page | None:
    global _page, _page_known, _looks_left
    _page_known = True
    _looks_left = 0 if os.environ.get("TRAINMASTER_STRAGGLERS") == "off" else _LOOKS
    path = os.environ.get("TRAINMASTER_STEP_FILE", "")
    if path:
        try:
            _page = Page(Path(path))
        except (OSError, ValueError):
            _page = None
    answer_for_stacks()
    return _page


def answer_for_stacks() -> None:
    """Write this process's Python stacks, of all threads, when the agent asks: also while the interpreter is in C."""
    global _stacks_out
    path = os.environ.get("TRAINMASTER_STACKS_FILE", "")
    if not path or _stacks_out is not None:
        return
    import faulthandler

    try:
        _stacks_out = Path(path).open("ab")  # noqa: SIM115 - stays open, since the handler may not open anything
        faulthandler.register(STACK_SIGNAL, file=_stacks_out, all_threads=True)
    except OSError:
        pass  # the rank runs; only its stacks will be missing


def become(task: Task) -> None:
    """Give this forked process what a new one would have: session, signals, files, folder, environment, randomness."""
    os.setsid()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    os.environ.clear()
    os.environ.update(task.env)
    os.chdir(task.cwd)
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), 0)
    for path, descriptor in ((task.out, 1), (task.err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the streams of the process, open to its end
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    if task.unbuffered:
        sys.stdout.reconfigure(write_through=True)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    # A forked copy of numpy's generator would give every rank the same "random" numbers. Python's own reseeds itself;
    # torch's starts from a fixed seed in new processes too.
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def run(task: Task) -> None:
    """Run the task in this process, as its main program. Leaves by SystemExit or an exception, as a program does."""
    import faulthandler

    faulthandler.enable(file=2)
    sys.excepthook = _show_exception
    answer_for_stacks()
    if task.modules_file:
        threading.Thread(target=_tell_modules, args=(Path(task.modules_file),), daemon=True).start()
    sys.argv = list(task.argv)
    if task.kind == "callable":
        sys.exit(run_callable(Path(task.env["TRAINMASTER_RUN_DIR"])))
    if task.kind == "module":
        sys.path.insert(0, task.cwd)
        _forget_shadowed(Path(task.cwd))
        runpy.run_module(task.argv[0], run_name="__main__", alter_sys=True)
    else:
        script = Path(task.argv[0]).resolve()
        sys.path.insert(0, str(script.parent))
        _forget_shadowed(script.parent)
        runpy.run_path(task.argv[0], run_name="__main__")


def shadowed_names(folder: Path) -> frozenset[str]:
    """Top-level names that modules in the script's own folder take from libraries."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return frozenset()
    files = {entry.stem for entry in entries if entry.suffix == ".py"}
    return frozenset(files | {entry.name for entry in entries if (entry / "__init__.py").exists()})


def _forget_shadowed(folder: Path) -> None:
    """Drop libraries that were imported ahead and that the script's folder has a module of the same name for."""
    names = shadowed_names(folder) - set(sys.builtin_module_names)
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        # Frozen modules (os, codecs ...) are loaded before any script in a fresh interpreter too.
        if getattr(getattr(sys.modules[name], "__spec__", None), "origin", None) != "frozen":
            del sys.modules[name]


def _show_exception(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback that begins in the user's script, as it would had Python started it."""
    ours = (str(Path(__file__).parents[1]), "<frozen runpy>", "<string>")
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(ours):
        first = first.tb_next
    traceback.print_exception(kind, value, first or trace)


def _tell_modules(path: Path) -> None:
    """Write down, a few times in the first minute, which modules are imported, so that the next start has them."""
    known = 0
    for pause_s in (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        time.sleep(pause_s)
        names = [name for name, module in list(sys.modules.items()) if module is not None]
        if len(names) == known:
            continue
        known = len(names)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(names))
            temporary.rename(path)
        except OSError:
            return


def _write_pickle(path: Path, value: Any) -> None:
    """Write a pickle so that it is there whole or not at all."""
    import cloudpickle

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        cloudpickle.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)


def run_callable(run_dir: Path) -> int:
    """Load `submitted.pkl`, call it, leave its result where the submitter looks. Returns the rank's exit code.

    SIGUSR2 asks for a checkpoint. The handler stands before anything heavy is loaded, since Slurm sends the signal
    when it likes: early, it is remembered; late, it is heeded though the main thread be stuck. A function with
    submitit's `checkpoint` method is asked for its successor on rank 0, which replaces `submitted.pkl` and ends with
    "please requeue".
    """
    asked: list[float] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(time.time())

    signal.signal(signal.SIGUSR2, remember)
    rank = int(os.environ["RANK"])
    attempt, cycle = os.environ["TRAINMASTER_ATTEMPT"], os.environ["TRAINMASTER_CYCLE"]
    folder = run_dir / f"attempt{attempt}.{cycle}"
    result_file = folder / f"rank{rank}.result.pkl"
    try:
        from submitit.core.utils import DelayedSubmission

        from trainmaster.launcher import plan
        from trainmaster.launcher.rank.heed import heed

        # The working folder too, which -P keeps off the path of our own start.
        wanted = (*plan.read(run_dir).import_path, str(Path.cwd()))
        sys.path[:0] = [entry for entry in wanted if entry not in sys.path]
        delayed = DelayedSubmission.load(run_dir / "submitted.pkl")

        def checkpoint() -> None:
            if rank != 0:
                # As with submitit, rank 0 speaks for all; the supervisor stops the others once it has ended.
                return
            successor = delayed._checkpoint_function()
            if successor is None:
                # Not checkpointable: let the call go on until Slurm ends it.
                return
            successor.set_timeout(0, 0)
            _write_pickle(run_dir / "submitted.pkl", successor)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_REQUEUE)

        heed(signal.SIGUSR2, checkpoint)
        if asked:
            checkpoint()
        result = delayed.result()
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            raise
        return _leave_error(folder, rank, "the function ended with sys.exit() instead of returning a result")
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever the user's function raises is its result, CancelledError too
        return _leave_error(folder, rank, traceback.format_exc())
    try:
        _write_pickle(result_file, ("success", result))
    except Exception:  # noqa: BLE001 - pickle raises whatever the object's own methods raise
        text = f"the function returned, but its result of type {type(result)} could not be stored:\n"
        return _leave_error(folder, rank, text + traceback.format_exc())
    return 0


def _leave_error(folder: Path, rank: int, text: str) -> int:
    """Say what went wrong in the log, as the result, and where the agent looks for it. Returns the exit code."""
    print(text, file=sys.stderr)  # noqa: T201
    _write_pickle(folder / f"rank{rank}.result.pkl", ("error", text))
    message = {"message": {"message": text.rstrip().rpartition("\n")[2], "extraInfo": {"py_callstack": text}}}
    (folder / f"rank{rank}.error.json").write_text(json.dumps(message))
    return 1


def main() -> None:
    """`python -m trainmaster.launcher.rank.worker RUN_DIR`: a callable's rank that starts cold."""
    run_dir = Path(sys.argv[1])
    answer_for_stacks()
    sys.exit(run_callable(run_dir))


if __name__ == "__main__":
    main()
