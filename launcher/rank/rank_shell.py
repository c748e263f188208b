"""The shell around a rank that no agent started, and the notes by which its agent watches it. Standard library only.

Such a rank is a task of a Slurm step, or torchrun's worker, perhaps inside a container that has no Python: so this is
plain sh. The agent makes a folder of notes for each cycle, and the folder is the leave to run:

    /dev/shm/trainmaster-<uid>-<job>.<node>/<attempt>.<cycle>/<rank>.env    the agent's: what the environment gains
                                                              <rank>.pid    the shell's, before the rank starts
                                                              <rank>.exit   the rank's exit code

To end a cycle the agent renames the folder first and kills what has left a pid in it after; a shell that comes late can
leave none, and so never starts its rank.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

NOTES_FOLDER = Path("/dev/shm")
PATIENCE_S = 60
"""How long a shell waits for its agent to expect it."""

_AWAIT_LEAVE = f"""\
tm_notes=$TRAINMASTER_NOTES.$SLURMD_NODENAME/$TRAINMASTER_ATTEMPT.$TRAINMASTER_CYCLE
tm_tries=0
until [ -r "$tm_notes/$tm_who.env" ] && {{ echo $$ >"$tm_notes/$tm_who.pid"; }} 2>/dev/null; do
    tm_tries=$((tm_tries + 1))
    if [ $tm_tries -gt {PATIENCE_S * 10} ]; then
        echo "trainmaster: $SLURMD_NODENAME expects no $tm_what $tm_who in cycle $TRAINMASTER_CYCLE" >&2
        exit 71
    fi
    sleep 0.1
done
. "$tm_notes/$tm_who.env"
"""

RANK = (
    """\
case $1 in slurm) tm_who=$SLURM_PROCID ;; *) tm_who=$RANK ;; esac
tm_what=rank
shift
mkdir -p "$TRAINMASTER_LOGS"
exec >>"$TRAINMASTER_LOGS/rank$tm_who.out" 2>>"$TRAINMASTER_LOGS/rank$tm_who.$TRAINMASTER_STDERR"
"""
    + _AWAIT_LEAVE
    + """\
exec 9>"$tm_notes/$tm_who.exit"
trap : HUP INT TERM USR1 USR2
"$@" 9>&-
tm_code=$?
echo $tm_code >&9
exit $tm_code
"""
)
"""One rank: logs, leave, environment, program, exit code. The shell outlives signals that are meant for the rank."""

NODE = (
    """\
tm_who=node
tm_what=launcher
mkdir -p "$TRAINMASTER_LOGS"
exec >>"$TRAINMASTER_LOGS/torchrun$SLURM_PROCID.log" 2>&1
"""
    + _AWAIT_LEAVE
    + """\
export PET_NODE_RANK="$SLURM_PROCID"
exec "$@"
"""
)
"""One torchrun a node. Slurm's task number is its place in our order of nodes; torchrun reads PET_<OPTION>."""


def rank_words(how: str) -> tuple[str, ...]:
    """The words before a rank's program. `how`: "slurm" when the rank is a task of a step, else "torchrun"."""
    return ("sh", "-c", RANK, "rank.sh", how)


def node_words() -> tuple[str, ...]:
    """The words before the command that starts a node's ranks."""
    return ("sh", "-c", NODE, "node.sh")


def notes_stem(uid: str, job_id: int | str) -> str:
    """The path of a job's notes up to the node's name: TRAINMASTER_NOTES. The tasks of an array have their own."""
    return str(NOTES_FOLDER / f"trainmaster-{uid}-{job_id}")


def notes_of(uid: str, job_id: int | str, node: str) -> Path:
    """The folder of notes of a job on a node."""
    return Path(f"{notes_stem(uid, job_id)}.{node}")


def exports(env: Mapping[str, str]) -> str:
    r"""Shell lines that set variables, each value as it is.

    >>> exports({"A": "it's $HOME"})
    "export A='it'\"'\"'s $HOME'\n"
    """
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
