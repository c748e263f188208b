"""Options of `submit` and `run` that say where a job shall lie in the fabric."""

import argparse
from typing import Any


def add_placement_options(parser: argparse.ArgumentParser, *, steering: bool = True) -> None:
    """Describe them. `steering`: also those that hold only before a job is submitted."""
    parser.add_argument("--mesh", metavar="AXIS=SIZE,...", help="order ranks for this mesh, such as tp=8,pp=4,dp=16")
    if steering:
        parser.add_argument("--placement", choices=("auto", "off"), help="auto: keep the job to the best pods")
        parser.add_argument("--pods-max", type=int, metavar="N", help="start in so many pods of the fabric at most")
        parser.add_argument("--leaves-max", type=int, metavar="N", help="and under so many leaf switches (--switches)")
        parser.add_argument(
            "--placement-wait-s", type=float, metavar="SECONDS", help="how much later it may start for its place"
        )


def with_placement(values: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Plain values of a spec, with the placement of the command line. Raises UsageError for a mesh that is none."""
    options = {
        "topology": "placement",
        "pods_max": "pods_max",
        "leaves_max": "leaves_max",
        "wait_s": "placement_wait_s",
    }
    given: dict[str, Any] = {key: getattr(args, name, None) for key, name in options.items()}
    given = {key: value for key, value in given.items() if value is not None}
    if args.mesh is not None:
        given["mesh"] = mesh_of(args.mesh)
    if not given:
        return values
    before = values.get("placement") or {}
    return {**values, "placement": {**({"topology": before} if isinstance(before, str) else before), **given}}


def mesh_of(text: str) -> dict[str, int]:
    """Axes and sizes of "tp=8,dp=4". Raises UsageError."""
    from trainmaster.errors import UsageError
    from trainmaster.fabric.mesh import read_mesh

    try:
        return read_mesh(text)
    except ValueError as error:
        raise UsageError(f"could not read the mesh {text!r}: {error}", hint="write tp=8,pp=4,dp=16") from None
