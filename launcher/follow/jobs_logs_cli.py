"""`trainmaster jobs logs`: what ranks wrote, and following it across restarts."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.find import Found
    from trainmaster.launcher.follow.jobs_args_cli import Verbs
    from trainmaster.launcher.follow.life import CycleLife
    from trainmaster.launcher.follow.logs import Cycle
    from trainmaster.launcher.follow.watch import Watch

_POLL_S = 0.2


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    logs = new_verb(verbs, "logs", "what a rank wrote", run_logs)
    logs.add_argument("--role", metavar="ROLE", help="of a job of roles: whose ranks")
    logs.add_argument("--rank", default="0", metavar="RANKS", help="which rank: 3, or 0-3,7, or all (default: 0)")
    text = "the rank that failed first, and its standard error, in the newest cycle that ended by a failure"
    logs.add_argument("--failed", action="store_true", help=text)
    logs.add_argument("--attempt", type=int, metavar="N", help="which attempt (default: the newest)")
    logs.add_argument("--cycle", type=int, metavar="N", help="which cycle of the attempt (default: the newest)")
    logs.add_argument("--err", action="store_true", help="standard error instead of standard output")
    logs.add_argument("--grep", metavar="REGEX", help="only lines in which this regular expression is found")
    logs.add_argument("--supervisor", action="store_true", help="what the job's supervisor and setup lines wrote")
    text = "go on as it grows, across restarts, until the job ends"
    logs.add_argument("-f", "--follow", action="store_true", help=text)


def run_logs(args: argparse.Namespace) -> int:
    """Copy logs to stdout in bounded pieces; with --json only say where they lie."""
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch
    from trainmaster.launcher.roles.part import of_role
    from trainmaster.launcher.submit.submission import OUTPUT

    found = find(args.job_id, args.folder)
    watch = Watch.of(found)
    wanted = _pattern(args.grep)
    if args.supervisor:
        path = found.run_dir / OUTPUT
        if args.json:
            _print_paths([path])
        else:
            _write(_kept(_one_file(path, watch, args.follow), wanted))
        return 0
    stream = "err" if args.err or args.failed else "out"
    first = _first_failure(found, watch, args.role) if args.failed else None
    if found.plan.roles:
        found = of_role(found, first.role if first is not None else args.role)
    if first is not None:
        ranks: tuple[int, ...] = (first.failure["rank"],)
    else:
        ranks = _ranks(args.rank, found.ranks)
    names = {rank: f"rank{rank}.{stream}" for rank in ranks}
    chosen = args.attempt is not None or args.cycle is not None
    starts: dict[int, Cycle | None] = dict.fromkeys(ranks)
    if first is not None or chosen or not args.follow:
        starts |= {rank: _cycle(args, found, watch, rank, first) for rank in ranks}
    if args.follow and not args.json:
        _follow(found, watch, names, starts, wanted)
        return 0
    cycles = {rank: cycle for rank, cycle in starts.items() if cycle is not None}
    paths = {rank: cycle.folder(found.run_dir) / names[rank] for rank, cycle in cycles.items()}
    if args.json:
        _print_paths(paths.values())
        return 0
    for rank, path in paths.items():
        _write(_kept(_content(path), wanted, prefix=_prefix(rank, names)))
        if not path.stat().st_size:
            print(f"trainmaster jobs: {_nothing_there(rank, cycles[rank], stream, first)}", file=sys.stderr)
    return 0


def _nothing_there(rank: int, cycle: "Cycle", stream: str, first: "CycleLife | None") -> str:
    """What is known of a rank whose file is empty: no output at all looks as if nothing had happened."""
    which = "standard error" if stream == "err" else "standard output"
    where = f"in cycle {cycle.attempt}.{cycle.cycle}"
    if first is None:
        return f"rank {rank} wrote nothing to its {which} {where}"
    failure = first.failure
    how = f"signal {failure['signal']}" if failure.get("signal") else f"exit code {failure.get('exit_code')}"
    return f"rank {rank} on {failure.get('node')} ended by {how} {where}; its {which} is empty"


def _pattern(text: str | None) -> "re.Pattern[bytes] | None":
    from trainmaster.errors import UsageError

    try:
        return None if text is None else re.compile(text.encode())
    except re.error as error:
        raise UsageError(f"could not read --grep {text!r}: {error}") from None


def _ranks(text: str, count: int) -> tuple[int, ...]:
    """The ranks that `--rank` names."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher import ids

    if text == "all":
        return tuple(range(count))
    ranks = tuple(dict.fromkeys(ids.indices(text)))
    if not ranks or max(ranks) >= count or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise UsageError(f"the job has the ranks 0 to {count - 1}, not {text}", hint="write 3, or 0-3,7, or all")
    return ranks


def _cycle(args: argparse.Namespace, found: "Found", watch: "Watch", rank: int, first: "CycleLife | None") -> "Cycle":
    from trainmaster.errors import UsageError
    from trainmaster.launcher.follow import logs
    from trainmaster.launcher.roles.part import events_of

    if first is not None:
        return logs.Cycle(attempt=first.attempt, cycle=first.cycle)
    known = logs.cycles(found.run_dir, events_of(found, watch.events(), rank))
    if found.plan.agent_per_rank:
        # The folders of a role whose replicas restart alone are each shared by some of them.
        known = tuple(one for one in known if (one.folder(found.run_dir) / f"rank{rank}.out").exists())
    if not known:
        raise UsageError(
            f"no rank of job {found.job_id} has started yet",
            hint=f"what ran before them: trainmaster jobs logs --supervisor {found.job_id}",
        )
    wanted = [one for one in known if args.attempt in (None, one.attempt) and args.cycle in (None, one.cycle)]
    if not wanted:
        there = ", ".join(f"{one.attempt}.{one.cycle}" for one in known)
        raise UsageError(f"job {found.job_id} has no such cycle; there are (attempt.cycle): {there}")
    return wanted[-1]


def _first_failure(found: "Found", watch: "Watch", role: str | None) -> "CycleLife":
    """The newest cycle that a rank's failure ended."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher.follow.life import cycles_of

    rows = [row for row in cycles_of(watch.events()) if role in (None, row.role)]
    failed = [row for row in rows if isinstance(row.failure.get("rank"), int) and row.failure["rank"] >= 0]
    if not failed:
        raise UsageError(
            f"no rank of job {found.job_id} has failed",
            hint=f"trainmaster jobs show {found.job_id} tells what else ended its cycles",
        )
    return max(failed, key=lambda row: row.ended_s or 0.0)


def _print_paths(paths: Iterable[Path]) -> None:
    told = [{"path": str(path), "bytes": path.stat().st_size if path.exists() else None} for path in paths]
    print(json.dumps(told[0] if len(told) == 1 else told))


def _one_file(path: Path, watch: "Watch", follow: bool) -> Iterator[bytes]:
    from trainmaster.launcher.follow import logs

    if follow:
        return logs.follow_file(path, over=lambda: watch.settle() is not None, poll_s=_POLL_S)
    return _content(path)


def _content(path: Path) -> Iterator[bytes]:
    from trainmaster.errors import UsageError
    from trainmaster.launcher.follow import logs

    if not path.exists():
        raise UsageError(f"could not find {path}: nothing was written there, or it has not started yet")
    return logs.content(path)


def _follow(
    found: "Found",
    watch: "Watch",
    names: dict[int, str],
    starts: "dict[int, Cycle | None]",
    wanted: "re.Pattern[bytes] | None",
) -> None:
    """Follow the files of one or more ranks until the job ends."""
    import time

    from trainmaster.launcher.follow import logs
    from trainmaster.launcher.follow.watch import Spells
    from trainmaster.launcher.roles.part import events_of

    alone = found.plan.agent_per_rank
    tails = {
        rank: logs.Tail(found.run_dir, name, start=starts[rank], recorded_only=alone) for rank, name in names.items()
    }
    keep = {rank: _Filter(wanted, _prefix(rank, names)) for rank in names}
    spells = Spells(watch)
    while True:
        # Asked before reading: what was written before the end is read below.
        ended = watch.settle() is not None
        for rank, tail in tails.items():
            for piece in tail.more(events_of(found, watch.events(), rank)):
                _write(keep[rank].pass_on(piece))
            if ended:
                _write(keep[rank].rest())
        if ended:
            break
        if (blind := spells.due()) is not None:
            print(f"trainmaster jobs: {blind}", file=sys.stderr)
        time.sleep(_POLL_S * max(1.0, len(names) / 32))
    if not logs.cycles(found.run_dir, events_of(found, watch.events(), 0)):
        text = f"job {found.job_id} has ended and no rank of it ever started; trainmaster jobs logs --supervisor"
        print(f"{text} {found.job_id} shows what ran before them", file=sys.stderr)


def _prefix(rank: int, names: dict[int, str]) -> bytes:
    return b"" if len(names) == 1 else f"[{rank}] ".encode()


def _kept(pieces: Iterable[bytes], wanted: "re.Pattern[bytes] | None", *, prefix: bytes = b"") -> Iterator[bytes]:
    keep = _Filter(wanted, prefix)
    for piece in pieces:
        yield from keep.pass_on(piece)
    yield from keep.rest()


class _Filter:
    """Lines that are wanted, each with a prefix; without either, pieces as they come."""

    def __init__(self, wanted: "re.Pattern[bytes] | None", prefix: bytes) -> None:
        from trainmaster.launcher.follow.logs import Lines

        self._wanted = wanted
        self._prefix = prefix
        self._lines = Lines()
        self.pass_on: Callable[[bytes], Iterator[bytes]] = (
            self._choose if wanted is not None or prefix else lambda piece: iter((piece,))
        )

    def _choose(self, piece: bytes) -> Iterator[bytes]:
        for line in self._lines.cut(piece):
            if self._wanted is None or self._wanted.search(line):
                yield self._prefix + line

    def rest(self) -> Iterator[bytes]:
        """What was left without the end of its line."""
        line = self._lines.rest()
        if line and (self._wanted is None or self._wanted.search(line)):
            yield self._prefix + line + b"\n"


def _write(pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
