"""The table of releases."""

import pytest

from trainmaster.slurm import versions


@pytest.mark.parametrize(
    ("text", "release"),
    [("22.05.8", (22, 5)), ("slurm-wlm 24.11.5", (24, 11)), ("26.05", (26, 5)), ("", (0, 0)), ("7", (0, 0))],
)
def test_a_release_in_a_version(text: str, release: tuple[int, int]) -> None:
    assert versions.release(text) == release


def test_releases_are_in_order_and_every_feature_came_with_one() -> None:
    assert list(versions.RELEASES) == sorted(versions.RELEASES)
    assert set(versions.SINCE.values()) <= set(versions.RELEASES)


def test_defaults_differ_as_the_manuals_say() -> None:
    old, new = versions.defaults((22, 5)), versions.defaults((26, 5))
    assert (old["treewidth"], new["treewidth"]) == ("50", "16")
    assert (old["selecttype"], new["selecttype"]) == ("select/linear", "select/cons_tres")
    assert "healthchecktimeout" not in old and new["healthchecktimeout"] == "60"
