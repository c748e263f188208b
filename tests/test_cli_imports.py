"""The command starts quickly because it imports little. The test reads names of modules, which do not flicker."""

import json
import subprocess
import sys

import pytest

# What `python -m trainmaster NOUN --help` may have loaded beyond what the interpreter itself starts with.
ALLOWED = {
    "trainmaster",
    # argparse and what it needs
    "argparse", "gettext", "locale", "re", "shutil", "fnmatch", "copy", "copyreg", "functools", "operator", "enum",
    "collections", "keyword", "reprlib", "types", "itertools",
    # shutil looks for what it can unpack
    "bz2", "lzma", "zlib", "_bz2", "_lzma", "_compression", "errno", "warnings",
    # small parts of the standard library
    "dataclasses", "json", "pathlib", "urllib", "ipaddress", "math", "time", "datetime", "typing", "contextlib",
    "importlib", "runpy", "pkgutil", "zipimport", "inspect", "ast", "dis", "opcode", "token", "tokenize", "linecache",
    "shlex", "struct", "random", "bisect", "hashlib", "weakref", "textwrap", "string", "ntpath", "fcntl", "grp", "pwd",
}  # fmt: skip
HEAVY = {
    "submitit",
    "cloudpickle",
    "torch",
    "numpy",
    "rich",
    "jinja2",
    "asyncio",
    "multiprocessing",
    "ClusterShell",
    "msgspec",
}

# What `typing` brings in Python 3.11 to 3.14.
ALLOWED_BY_TYPING = {
    "typing", "collections", "contextlib", "functools", "operator", "re", "copyreg", "enum", "itertools", "keyword",
    "reprlib", "types", "warnings",
}  # fmt: skip

CODE = """
import json, sys
started = set(sys.modules)
from trainmaster.cli import main
sys.argv = ["trainmaster"]
try:
    main(json.loads(sys.stdin.read()))
except SystemExit:
    pass
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - started})))
"""


def loaded(argv: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=json.dumps(argv), capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["submit", "--help"],
        ["run", "--help"],
        ["template", "--help"],
        ["jobs", "--help"],
        ["jobs", "show", "--help"],
        ["lab", "--help"],
        ["config", "--help"],
        ["health", "--help"],
        ["fabric", "--help"],
        ["fabric", "emit", "--help"],
        ["install", "--help"],
        ["uninstall", "--help"],
        ["doctor", "--help"],
        ["controller", "--help"],
        ["sim", "--help"],
        ["report", "--help"],
        ["controller", "page", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_little(argv):
    names = {name for name in loaded(argv) if not name.startswith("_")}
    assert not names & HEAVY
    assert names <= ALLOWED, f"new imports: {sorted(names - ALLOWED)}"


def test_listing_jobs_needs_nothing_heavy():
    assert not loaded(["jobs", "list"]) & HEAVY


def test_importing_the_package_costs_nothing():
    code = "import json, sys; a = set(sys.modules); import trainmaster; print(json.dumps(sorted(set(sys.modules) - a)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert {name for name in names if not name.startswith("_")} <= ALLOWED_BY_TYPING | {"trainmaster"}
