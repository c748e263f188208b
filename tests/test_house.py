"""The house of DESIGN.md: floors as data, arrows only downward, and what may not be written anywhere in it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "trainmaster"

# Folder or module -> floor. An arrow goes to a lower floor; on one floor only floor 0 may look around.
FLOORS = {
    "cli": 4,
    "__main__": 5,
    "__init__": 5,  # names are loaded on first use; it stands above everything and below nothing
    "report": 3,
    "page": 3,
    "launcher": 2,
    "controller": 2,
    "slurm_plugins": 2,
    "lab": 2,
    "health": 1,
    "fabric": 1,
    "slurm": 0,
    "templates": 0,
    "errors": 0,
    "config": 0,
    "clock": 0,
    "log": 0,
}
FOLDERS = tuple(name for name in FLOORS if (ROOT / name).is_dir())

# Where `except Exception` is the point: the health runner, its children and the controller's loop meet whatever others
# wrote; a rank's worker, and the fork server that becomes one, meet the user's own code; what a thread that writes a
# checkpoint runs into belongs to whoever waits for it, and torch's CheckpointException is no Exception.
CATCH_ALL = {
    "health/runner.py",
    "health/children.py",
    "controller/loop.py",
    "launcher/rank/worker.py",
    "launcher/rank/forkserver.py",
    "launcher/rank/staging.py",
}

# These run inside a job, a prolog or a plug-in, often under another Python than the one that has our dependencies.
STANDARD_LIBRARY_ONLY = (
    "slurm",
    "health",
    "launcher/supervise",
    "launcher/node",
    "launcher/diagnose",
    "launcher/script/array_task.py",
    *(f"launcher/{name}.py" for name in ("plan", "record", "wire", "intent", "swap_request", "drills", "array_layout")),
    *(f"launcher/{name}.py" for name in ("exit_rules", "placement")),
    *(
        f"launcher/rank/{name}.py"
        for name in (
            *("forkserver", "rank_env", "page", "order", "rank_shell", "enter", "heed", "copy_link", "saves"),
            *("collectives", "gpu_time"),
        )
    ),
    *(f"launcher/roles/{name}.py" for name in ("registry", "role_plan", "role_env")),
    *(f"fabric/{name}.py" for name in ("order", "mesh", "crossings")),
)


def product_files() -> list[Path]:
    """Every module of the package, by its real path."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return files + sorted(SRC.glob("*.py"))


def all_files() -> list[Path]:
    """Those, and all other Python in the repository."""
    extra = [path for folder in ("tests", "examples", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    return product_files() + extra


def name_of(path: Path) -> str:
    return str(path.relative_to(SRC if SRC in path.parents else ROOT))


def part_of(path: Path) -> str:
    """The folder or module of the house that a file belongs to."""
    return name_of(path).split("/")[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, at the top or later."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: a relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def test_every_folder_of_the_house_is_linked_into_the_package():
    assert {path.name for path in SRC.iterdir() if path.is_symlink()} == set(FOLDERS)
    for folder in FOLDERS:
        assert (SRC / folder).resolve() == ROOT / folder


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_arrows_go_down(path):
    part = part_of(path)
    for line, name in imports(path):
        if not name.startswith("trainmaster."):
            continue
        other = name.split(".")[1]
        if other == part or other not in FLOORS:
            continue  # `from trainmaster import JobSpec` is the package's own face
        down = FLOORS[other] < FLOORS[part] or FLOORS[other] == FLOORS[part] == 0
        assert down, f"{name_of(path)}:{line}: {part} (floor {FLOORS[part]}) imports {other} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", all_files(), ids=name_of)
def test_folders_are_imported_by_their_full_name(path):
    own = {entry.stem for entry in path.parent.iterdir()}  # a script may import its neighbour
    for line, name in imports(path):
        first = name.split(".")[0]
        if first in FOLDERS and first not in own:
            raise AssertionError(f"{name_of(path)}:{line}: import trainmaster.{name}, not {name}")


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_no_shells_and_no_blind_catches(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            false = isinstance(node.value, ast.Constant) and node.value.value is False
            assert false, f"{name_of(path)}:{node.value.lineno}: shell=True"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "system"), ("os", "popen")}, (
                f"{name_of(path)}:{node.lineno}"
            )
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {entry.id for entry in caught if isinstance(entry, ast.Name)}
            blind = node.type is None or "Exception" in names or ("BaseException" in names and not _raises(node))
            assert not blind or name_of(path) in CATCH_ALL, f"{name_of(path)}:{node.lineno}: catches everything"


def _raises(handler: ast.ExceptHandler) -> bool:
    """Whether a handler ends by raising: it only cleans up."""
    return isinstance(handler.body[-1], ast.Raise)


SLURM_COMMANDS = {"sbatch", "squeue", "sinfo", "scancel", "scontrol", "sacct", "sacctmgr", "sdiag", "sreport"}


def test_only_the_door_and_the_nodes_run_slurm_commands():
    # srun starts the agents; it is a job's own process, not a question to slurmctld. The lab is its cluster's admin.
    for path in product_files():
        if name_of(path).startswith(("slurm/", "lab/", "health/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
                command = node.elts[0].value
                assert command not in SLURM_COMMANDS, f"{name_of(path)}:{node.lineno}: {command} past trainmaster.slurm"


def test_what_runs_on_nodes_imports_the_standard_library_only():
    import sys

    for entry in STANDARD_LIBRARY_ONLY:
        path = ROOT / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text())
            for node in tree.body:  # at the top; what is imported late is somebody's choice
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    first = name.split(".")[0]
                    assert first in sys.stdlib_module_names or first == "trainmaster", f"{name_of(file)} imports {name}"
