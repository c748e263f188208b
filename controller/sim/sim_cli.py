"""`trainmaster sim`: a fleet in numbers, looked after by the daemon's own decisions."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    ettr = verbs.add_parser(
        "ettr", help="how much of its time one big job gets further, from plain Slurm to warm spares"
    )
    ettr.add_argument("--nodes", type=int, default=2048, help="of the job, 8 GPUs each; default 2048")
    ettr.add_argument(
        "--failures-per-1000-node-days", type=float, default=3.79, metavar="R", help="default 3.79, Llama 3's"
    )
    ettr.add_argument("--days", type=float, default=30.0)
    ettr.add_argument("--seeds", type=int, default=10, help="runs of each; default 10")
    ettr.add_argument("--checkpoint-minutes", type=float, default=None, metavar="M", help="default: the optimum")
    ettr.add_argument(
        "--lemons", type=float, default=0.0, metavar="SHARE", help="of nodes that fail 206 times as often"
    )
    ettr.add_argument(
        "--no-failures-in-recovery",
        action="store_true",
        help="nodes do not fail while a job starts, as in closed forms",
    )
    ettr.add_argument("--json", action="store_true")
    ettr.set_defaults(run=_ettr)
    table = verbs.add_parser("table", help="the same for jobs of several sizes, as a table and a picture")
    table.add_argument("--gpus", type=int, nargs="+", default=[2048, 16384, 131072], help="8 a node")
    table.add_argument("--failures-per-1000-node-days", type=float, default=3.79, metavar="R")
    table.add_argument("--days", type=float, default=30.0)
    table.add_argument("--seeds", type=int, default=20, help="runs of each; default 20, some minutes")
    table.add_argument("--workers", type=int, default=None, help="processes; default: one for each processor")
    table.add_argument("--picture", default="", metavar="FILE", help="draw it: .svg, .png or .pdf; needs matplotlib")
    table.add_argument("--json", action="store_true")
    table.set_defaults(run=_table)
    trains = verbs.add_parser("maintenance", help="a maintenance train through a fleet: what it costs, what it breaks")
    trains.add_argument("--nodes", type=int, default=2048)
    trains.add_argument(
        "--failures-per-1000-node-days", type=float, default=3.79, metavar="R", help="default 3.79, Llama 3's"
    )
    trains.add_argument("--cycle-days", type=float, default=28.0)
    trains.add_argument("--domain", default="auto", help='hosts at once: "30", "1.5%%" or "auto" (the default)')
    trains.add_argument("--seeds", type=int, default=1)
    trains.add_argument("--bad-operation", default="", metavar="NAME", help="one that fails on some hosts")
    trains.add_argument("--bad-share", type=float, default=0.05, help="of hosts, on which it fails; default 0.05")
    trains.add_argument("--tick-s", type=float, default=10.0, help="how often the controller looks; default 10")
    trains.add_argument("--picture", default="", metavar="FILE", help="draw it: .svg, .png or .pdf; needs matplotlib")
    trains.add_argument("--check-rules", action="store_true", help="check all twelve rules at every decision; slower")
    trains.add_argument("--json", action="store_true")
    trains.set_defaults(run=_maintenance)
    lemons = verbs.add_parser("lemons", help="precision and recall of the lemon detector")
    lemons.add_argument("--nodes", type=int, default=2000)
    lemons.add_argument("--days", type=float, default=28.0)
    lemons.add_argument("--rate", type=float, default=387.0, help="of lemons, per 1,000 node-days; mild ones have 50")
    lemons.add_argument("--seeds", type=int, default=20)
    lemons.add_argument("--json", action="store_true")
    lemons.set_defaults(run=_lemons)


def _require(good: bool, what: str) -> None:
    from trainmaster.errors import UsageError

    if not good:
        raise UsageError(f"this cannot be simulated: {what}")


def _ettr(args: argparse.Namespace) -> int:
    import json

    from trainmaster.controller.sim.ettr import climb, figures, with_interval
    from trainmaster.controller.sim.parameters import World

    rate = args.failures_per_1000_node_days
    _require(args.nodes >= 1 and args.seeds >= 1 and args.days > 0, "--nodes, --seeds and --days have to be positive")
    _require(rate > 0, "--failures-per-1000-node-days has to be positive")
    _require(args.checkpoint_minutes is None or args.checkpoint_minutes > 0, "--checkpoint-minutes has to be positive")
    _require(0 <= args.lemons < 1, "--lemons is a share from 0 to 1")
    world = World(
        nodes=args.nodes,
        failures_per_1000_node_days=rate,
        days=args.days,
        failures_in_recovery=not args.no_failures_in_recovery,
        lemon_share=args.lemons,
    )
    world = with_interval(world, args.checkpoint_minutes)
    rungs = climb(world, seeds=range(args.seeds))
    if args.json:
        print(json.dumps(figures(world, rungs)))
        return 0
    interval = f"a checkpoint every {world.interval_s / 60:.1f} min"
    print(f"{world.nodes} nodes, {rate:g} failures per 1,000 node-days, {world.days:g} days, {interval}")
    recovery = "nodes also fail" if world.failures_in_recovery else "no node fails"
    print(f"{args.seeds} seeds each; {recovery} while the job starts")
    print(f"{'':12}  ETTR          most of the rest")
    for rung in rungs:
        lost = ", ".join(f"{why} {share:.1%}" for why, share in list(rung.lost().items())[:3])
        print(f"{rung.care.name:12}  {rung.ettr:.3f} ±{rung.error:.3f}  {lost}")
    return 0


def _table(args: argparse.Namespace) -> int:
    import json
    import os
    import sys
    from pathlib import Path

    from trainmaster.controller.sim import table
    from trainmaster.controller.sim.parameters import World

    rate = args.failures_per_1000_node_days
    _require(min(args.gpus) >= table.GPUS_A_NODE, "--gpus has to be 8 or more")
    _require(args.seeds >= 1 and args.days > 0 and rate > 0, "--seeds, --days and the failure rate have to be positive")
    workers = args.workers or os.cpu_count() or 1
    _require(workers >= 1, "--workers has to be positive")
    world = World(failures_per_1000_node_days=rate, days=args.days)
    found = table.columns(
        args.gpus,
        world,
        seeds=range(args.seeds),
        workers=workers,
        said=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if args.picture:
        table.draw(found, Path(args.picture))
    if args.json:
        print(json.dumps(table.figures(found)))
    else:
        print(
            f"{rate:g} failures per 1,000 node-days, {args.days:g} days, {args.seeds} seeds each, two standard errors"
        )
        print("\n".join(table.lines(found)))
    return 0


def _maintenance(args: argparse.Namespace) -> int:
    import json
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial

    from trainmaster.controller.sim.maintenance import simulate_maintenance_seed
    from trainmaster.controller.sim.maintenance_figures import figures
    from trainmaster.controller.sim.maintenance_world import OPERATIONS, MaintenanceWorld

    rate = args.failures_per_1000_node_days
    _require(args.nodes >= 8 and args.seeds >= 1, "--nodes has to be 8 or more, --seeds positive")
    positive = args.cycle_days > 0 and rate > 0 and args.tick_s > 0
    _require(positive, "--cycle-days, --tick-s and the failure rate have to be positive")
    _require(0 <= args.bad_share <= 1, "--bad-share is a share from 0 to 1")
    known = ", ".join(OPERATIONS)
    _require(not args.bad_operation or args.bad_operation in OPERATIONS, f"--bad-operation is one of {known}")
    world = MaintenanceWorld(
        nodes=args.nodes,
        failures_per_1000_node_days=rate,
        cycle_days=args.cycle_days,
        domain=args.domain,
        bad_operation=args.bad_operation,
        bad_share=args.bad_share,
        tick_s=args.tick_s,
    )
    run = partial(simulate_maintenance_seed, world, args.check_rules)
    if args.seeds == 1:
        runs = [run(0)]
    else:
        with ProcessPoolExecutor() as pool:
            runs = list(pool.map(run, range(args.seeds)))
    values = figures(world, runs)
    if args.picture:
        from pathlib import Path

        from trainmaster.controller.sim.maintenance_picture import draw

        draw(world, runs, Path(args.picture))
    if args.json:
        print(json.dumps(values))
        return 0
    for name, value in values.items():
        print(f"{name.replace('_', ' '):<34}{value}")
    return 0


def _lemons(args: argparse.Namespace) -> int:
    import json

    from trainmaster.controller.policy import Lemons
    from trainmaster.controller.sim.lemons import LemonWorld, score

    _require(args.nodes >= 1 and args.seeds >= 1 and args.days > 0, "--nodes, --seeds and --days have to be positive")
    _require(args.rate > 0, "--rate has to be positive")
    world = LemonWorld(nodes=args.nodes, days=args.days, lemon_rate=args.rate)
    posterior, rule = score(world, Lemons(), seeds=range(args.seeds))
    values = {
        "posterior_precision": round(posterior.precision, 4),
        "posterior_recall": round(posterior.recall, 4),
        "rule_precision": round(rule.precision, 4),
        "rule_recall": round(rule.recall, 4),
        "wrong_per_fleet": round(posterior.wrong / args.seeds, 3),
        "rule_wrong_per_fleet": round(rule.wrong / args.seeds, 3),
    }
    if args.json:
        print(json.dumps(values))
        return 0
    print(f"{args.nodes} nodes, {args.days:g} days, lemons fail {args.rate:g} times per 1,000 node-days")
    print(f"{'':26}precision  recall  wrong per fleet")
    for name, one, wrong in (
        ("posterior", posterior, posterior.wrong),
        ("three failures in 28 days", rule, rule.wrong),
    ):
        print(f"{name:26}{one.precision:9.3f}  {one.recall:6.3f}  {wrong / args.seeds:15.2f}")
    return 0
