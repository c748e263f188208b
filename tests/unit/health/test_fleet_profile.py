"""One profile for a fleet: masks of hosts, what wins over what, actions, and faults told with file and key."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.cli import main
from trainmaster.health import fleet, genconf, hosts, node, policy, profile
from trainmaster.health.check import Check
from trainmaster.health.finding import Action, Finding, Verdict, fail, warn
from trainmaster.health.profile import Profile

NUMBERS = st.integers(0, 300)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), st.integers(1, 3), NUMBERS, st.integers(0, 4))
def test_a_bracket_holds_what_slurm_would_expand_it_to(
    pairs: list[tuple[int, int]], width: int, number: int, shown: int
) -> None:
    ranges = [(min(pair), max(pair)) for pair in pairs]
    text = ",".join(f"{first:0{width}d}-{last:0{width}d}" for first, last in ranges)
    expanded = {
        # Slurm takes the width of the first number, and only where it begins with zeros.
        f"gpu{one:0{width if f'{first:0{width}d}'.startswith('0') else 0}d}"
        for first, last in ranges
        for one in range(first, last + 1)
    }
    name = f"gpu{number:0{shown}d}"
    assert hosts.matches(f"gpu[{text}]", name) == (name in expanded)


@given(st.from_regex(r"[a-z]{1,5}[0-9]{0,3}(-[a-z]{1,3})?", fullmatch=True), st.data())
def test_wildcards_hold_for_what_they_were_made_from(name: str, data: Any) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    assert hosts.matches(name[:place] + "?" + name[place + 1 :], name)
    assert hosts.matches(name[:place] + "*", name) and hosts.matches("*" + name[place:], name)
    assert not hosts.matches(name + "?", name) and not hosts.matches(f"*,!{name}", name)
    assert hosts.matches(name, name) and not hosts.matches("other", "o" + name)


def test_masks_of_several_parts() -> None:
    mask = "gpu[001-128,200],login*, rack[1-2]node[01-04],!gpu007"
    there = ("gpu001", "gpu128", "gpu200", "login", "login9", "rack2node04")
    assert [name for name in there if not hosts.matches(mask, name)] == []
    for name in ("gpu7", "gpu007", "gpu129", "gpu1", "gpu0001", "rack2node4", "rack3node01", "xlogin", ""):
        assert not hosts.matches(mask, name), name


@pytest.mark.parametrize("mask", ["", ",", "a,,b", "gpu[1-", "gpu]1[", "gpu[a-b]", "gpu[9-1]", "gpu[[1]]", "!", "g[]"])
def test_what_is_no_mask(mask: str) -> None:
    with pytest.raises(ValueError):
        hosts.parts(mask)


@given(st.text("gpu[]!*?,-0123 ", max_size=12), st.text("gpu012", max_size=6))
def test_any_text_is_a_mask_or_is_refused(mask: str, host: str) -> None:
    try:
        assert hosts.matches(mask, host) in (True, False)
    except ValueError:
        with pytest.raises(ValueError):
            hosts.parts(mask)


# -- precedence ----------------------------------------------------------------------------------------------------

FLEET = """
modes = {"*" = "comment", "gpu.xid" = "drain"}
thresholds = {"fs.usage" = 95}
off = ["gpu.temp"]

[[for]]
hosts = "gpu*"
gpus = 8
modes = {"gpu" = "drain"}
thresholds = {"fs.usage:/tmp" = 98}

[[for]]
hosts = "gpu[001-002]"
gpus = 4
off = []
modes = {"*" = "observe"}
"""


def test_later_parts_win_tables_are_merged_and_all_else_is_replaced() -> None:
    raw = tomllib.loads(FLEET)
    assert fleet.faults(raw, "f") == []
    first, login = profile.decode(raw, "gpu001"), profile.decode(raw, "login1")
    assert first[1] == login[1] == ()
    assert first[0].gpus == 4 and profile.decode(raw, "gpu003")[0].gpus == 8 and login[0].gpus is None
    assert first[0].names("off") == () and login[0].names("off") == ("gpu.temp",)
    assert first[0].table("thresholds") == {"fs.usage": 95, "fs.usage:/tmp": 98}
    assert [first[0].mode(check) for check in ("gpu.ecc.uncorr", "gpu.xid", "ib.state")] == [
        "drain",
        "drain",
        "observe",
    ]
    assert login[0].mode("ib.state") == "comment"


KEYS = st.sampled_from(["gpus", "cpus", "memory_mib"])
PART = st.fixed_dictionaries(
    {"hosts": st.sampled_from(["*", "a*", "b*", "[1-3]"])}, optional={"gpus": NUMBERS, "cpus": NUMBERS}
)


@given(st.dictionaries(KEYS, NUMBERS), st.lists(PART, max_size=5), st.sampled_from(["a1", "b1", "c"]))
def test_the_last_part_that_fits_decides(top: dict[str, int], given_parts: list[Any], host: str) -> None:
    found, origins, faults = hosts.merged({**top, "for": given_parts}, host)
    assert faults == []
    for key in ("gpus", "cpus", "memory_mib"):
        said = [part[key] for part in given_parts if key in part and hosts.matches(part["hosts"], host)]
        expected = said[-1] if said else top.get(key)
        assert found.get(key) == expected and (key in origins) == (expected is not None)


def test_a_part_that_cannot_be_meant_is_told_and_left_out() -> None:
    raw = {"gpus": 8, "for": [{"gpus": 1}, {"hosts": "a[", "gpus": 2}, 7, {"hosts": "a*", "gpus": 3}]}
    found, faults = profile.decode(raw, "a1")
    assert found.gpus == 3 and len(faults) == 3 and "write whom it is for" in faults[0]
    assert profile.decode({"for": 3, "gpus": 8}, "a1")[0].gpus == 8


def test_the_node_reads_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text(json.dumps(tomllib.loads(FLEET)))
    monkeypatch.setenv("SLURMD_NODENAME", "gpu002")
    assert node.read_profile(str(tmp_path / "p.json"))[0].gpus == 4


# -- actions -------------------------------------------------------------------------------------------------------


def decide(finding: Finding, **given: Any) -> Action:
    check = Check(finding.check, "", (), lambda context: [])
    return policy.decide([finding], checks={finding.check: check}, strikes={}, profile=Profile(given), now_s=0.0).action


def test_the_site_says_what_a_check_asks_for() -> None:
    failed = fail(Action.DRAIN, "full")._replace(check="fs.usage")
    warned = warn("off")._replace(check="gpu.persistence")
    unseen = Finding("gpu.query", Verdict.UNKNOWN, Action.DRAIN)
    assert decide(failed) is Action.DRAIN and decide(failed, actions={"fs": "comment"}) is Action.COMMENT
    assert decide(failed, actions={"fs": "comment", "fs.usage": "drain-reset"}) is Action.DRAIN_RESET
    assert decide(failed, actions={"fs.usage:warn": "none"}) is Action.DRAIN
    assert decide(warned, actions={"gpu.persistence": "drain"}) is Action.COMMENT
    assert decide(warned, actions={"gpu.persistence:warn": "drain"}) is Action.DRAIN
    assert decide(unseen, actions={"gpu:unknown": "comment"}) is Action.COMMENT
    # A mode is still the limit, and what is well is never made ill.
    assert decide(warned, actions={"gpu:warn": "drain"}, modes={"*": "comment"}) is Action.COMMENT
    assert decide(Finding("gpu.temp", Verdict.OK), actions={"gpu": "drain"}) is Action.NONE
    assert decide(Finding("gpu.temp", Verdict.UNKNOWN), actions={"gpu:unknown": "drain"}) is Action.NONE


def test_a_drain_that_the_site_asks_for_counts_strikes_too() -> None:
    check = Check("gpu.temp", "", (), lambda context: [], strikes=3)
    hot = warn("hot")._replace(check="gpu.temp")
    site, strikes = Profile({"actions": {"gpu.temp:warn": "drain"}}), {}
    actions = []
    for moment in range(3):
        decision = policy.decide([hot], checks={"gpu.temp": check}, strikes=strikes, profile=site, now_s=moment)
        strikes = dict(decision.strikes)
        actions.append(decision.action)
    assert actions == [Action.COMMENT, Action.COMMENT, Action.DRAIN]


# -- compile -------------------------------------------------------------------------------------------------------


def test_all_faults_are_told_with_what_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "health.toml"
    file.write_text(
        'gpuz = 8\ncpus = "many"\nrequeue = 1\noff = ["gpu.tmp"]\n'
        'modes = {"gpu.xid" = "drian", "gpu.xids" = "drain"}\nthresholds = {"fs.usage" = "high"}\n'
        'actions = {"gpu.xid:wran" = "drain"}\n[[for]]\ngpus = 4\n[[for]]\nhosts = "gpu[1-"\n'
    )
    assert main(["health", "compile", str(file), f"--out={tmp_path}/out.json"]) == 2
    said = capsys.readouterr().err
    for words in (
        "gpuz is not known; did you mean 'gpu",
        "cpus is 'many'; write a whole number",
        "requeue is 1; write true or false",
        "off: no check is called 'gpu.tmp'; did you mean 'gpu.temp'?",
        "modes.gpu.xid is 'drian'; write one of observe, comment, drain",
        "modes.gpu.xids: no check is called so; did you mean 'gpu.xid'?",
        "thresholds.fs.usage is 'high'; write a number",
        "actions.gpu.xid:wran: no check is called so; did you mean 'gpu.xid:warn'?",
        "for[0].hosts is missing; write whom",
        "for[1].hosts: 'gpu[1-' is no list",
    ):
        assert f"{file}: {words}" in said, words
    assert not (tmp_path / "out.json").exists()


def test_what_holds_for_a_node_and_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "health.toml", tmp_path / "health.json"
    file.write_text(FLEET)
    assert main(["health", "compile", str(file), "--host", "gpu001"]) == 0
    said = capsys.readouterr().out
    assert "gpus = 4   # for[1] (gpu[001-002])" in said and "thresholds.fs.usage = 95   # all hosts" in said
    assert main(["health", "compile", str(file), "--out", str(out)]) == 0
    assert profile.decode(json.loads(out.read_text()), "gpu003")[0].gpus == 8


VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_toml_that_is_written_reads_the_same(values: dict[str, Any]) -> None:
    assert tomllib.loads(fleet.as_toml(values)) == values
    part = {key: value for key, value in values.items() if key != "hosts"}
    assert tomllib.loads(fleet.as_toml(part, 'gpu"*'))["for"] == [{"hosts": 'gpu"*', **part}]


SOME = st.dictionaries(
    st.sampled_from("abc"), st.integers(0, 2) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 1))
)


@given(SOME, st.lists(SOME, max_size=4), st.randoms())
def test_what_more_than_half_have_is_the_majority(usual: Any, others: list[Any], random: Any) -> None:
    everybody = [usual] * (len(others) + 1) + others
    random.shuffle(everybody)
    found, odd = genconf.majority(everybody)
    assert {k: v for k, v in found.items() if v != {}} == {k: v for k, v in usual.items() if v != {}}
    assert all(everybody[number] != usual for number, _ in odd)


def test_genconf_writes_a_part_for_the_fleets_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, gpus in enumerate((8, 8, 7)):
        (tmp_path / f"{number}.json").write_text(json.dumps({"gpus": gpus, "mounts": {"/s": {"type": "nfs4"}}}))
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    assert main(["health", "genconf", "--fleet", *files, "--toml", "gpu[001-128]"]) == 0
    said = capsys.readouterr()
    raw = tomllib.loads(said.out)
    assert raw == {"for": [{"hosts": "gpu[001-128]", "gpus": 8, "mounts": {"/s": {"type": "nfs4"}}}]}
    assert "2.json differs in gpus" in said.err and fleet.faults(raw, "f") == []
