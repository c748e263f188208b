"""The node of files that the benchmark of faults breaks serves these tests too; and NVML, by a library built here."""

import sys
from pathlib import Path
from typing import Any

import pytest

import fake_nvml
from trainmaster.health import runner
from trainmaster.health.check import Place, Source
from trainmaster.health.profile import Profile
from trainmaster.health.sources import gpu_query

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library's path."""
    return fake_nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def ask_nvml(nvml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """ask_nvml(lines) -> what the runner read from gpu.query with the library for a source."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "answers"))

    def asked(lines: list[str], source: Source = gpu_query.SOURCE, path: str = nvml) -> runner.Reading:
        (tmp_path / "answers").write_text("\n".join(lines) + "\n")
        place = Place(profile=Profile({"gpus": 1, "tools": {"libnvidia-ml": path}}))
        return runner.read_all([source], lambda _: place)[source.name]

    return asked
