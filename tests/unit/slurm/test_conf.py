"""The cluster's name, from its slurm.conf."""

from trainmaster.slurm.conf import cluster_name


def test_the_name_in_any_case_and_in_an_included_file(tmp_path):
    (tmp_path / "a.conf").write_text("# ClusterName=old\nSlurmctldHost=x\nclustername = alpha # mine\n")
    (tmp_path / "b.conf").write_text("Include more.conf\nSlurmctldHost=x\n")
    (tmp_path / "more.conf").write_text("ClusterName=beta\n")
    assert [cluster_name(str(tmp_path / name)) for name in ("a.conf", "b.conf", "gone.conf")] == ["alpha", "beta", ""]
