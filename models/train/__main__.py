"""``python -m hyperprep.models.train``: prepare label maps, train a network, export its weights."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import tomli_w
import torch

from hyperprep.exceptions import HyperPrepError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hyperprep.models.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="bring label maps into the template frame")
    prepare.add_argument("source", type=Path, help=".npz with 'maps' and 'labels'")
    prepare.add_argument("target", type=Path, help=".npz to write")
    normalise = commands.add_parser("normalise", help="deform prepared label maps into their mean shape")
    normalise.add_argument("source", type=Path, help=".npz made by 'prepare'")
    normalise.add_argument("target", type=Path, help=".npz to write")
    run = commands.add_parser("run", help="train a network, or go on training it")
    run.add_argument("config", help="TOML file, or the name of a configuration that ships")
    run.add_argument("--maps", type=Path, required=True, help="label maps made by 'prepare'")
    run.add_argument("--run-dir", type=Path, help="checkpoint, curve and result (default: runs/CONFIG)")
    run.add_argument("--max-time", type=float, metavar="MINUTES", help="stop after this much training in all")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of the configuration"
    )
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    run.add_argument("--threads", type=int, help="processor threads")
    run.add_argument(
        "--batches",
        type=int,
        metavar="N",
        help="batches per step over all processes that torchrun started (default: one for each)",
    )
    export = commands.add_parser("export", help="write fp16 weights, manifest entry and model card")
    export.add_argument("run_dir", type=Path)
    export.add_argument("--maps", type=Path, help="prepared label maps (needed for 'locate': centroids)")
    export.add_argument("--out", type=Path, help="folder of the weights (default: the package's own)")
    export.add_argument(
        "--score", action="append", default=[], metavar="NAME=VALUE", help="a measured figure to write down"
    )
    export.add_argument(
        "--rank", type=int, metavar="N", help="store a hypernetwork's last layer as a factorisation of rank N"
    )
    export.add_argument(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="the same at the smallest rank whose relative error stays below SHARE at all hyperparameters",
    )
    describe = commands.add_parser("describe", help="write the rules of use of exported weights anew")
    describe.add_argument("--maps", type=Path, help="prepared label maps, for the places in 'locate'")
    describe.add_argument("--out", type=Path, help="folder of the weights (default: the package's own)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "prepare":
            from hyperprep.models.train.prepare import prepare

            prepare(args.source, args.target)
        elif args.command == "normalise":
            from hyperprep.models.train.normalise import normalise

            normalise(args.source, args.target)
        elif args.command == "export":
            from hyperprep.models.train.export import export

            scores = {name: float(value) for name, _, value in (s.partition("=") for s in args.score)}
            print(
                export(
                    args.run_dir,
                    out_dir=args.out,
                    scores=scores,
                    maps_file=args.maps,
                    rank=args.rank,
                    max_error=args.max_error,
                )
            )
        elif args.command == "describe":
            from hyperprep.models.train.export import describe

            print(describe(args.out, maps_file=args.maps))
        else:
            _run(args)
    except HyperPrepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    from hyperprep.models.predict.device import device_of_process, pick_device
    from hyperprep.models.synth.maps import load_maps
    from hyperprep.models.train import configure, loop
    from hyperprep.models.train.processes import launched_processes

    if args.threads:
        torch.set_num_threads(args.threads)
    config = configure.override(configure.read_config(args.config), args.set)
    processes = launched_processes()
    several = processes.count > 1
    name = device_of_process(args.device, processes.local_rank) if several else args.device
    device = pick_device(name)
    maps = load_maps(args.maps)
    maps = replace(maps, maps=maps.maps.to(device), brain=maps.brain.to(device))
    run_dir = args.run_dir or Path("runs") / Path(args.config).stem
    run_dir.mkdir(parents=True, exist_ok=True)
    source = Path(args.config)
    if processes.leads:
        shipped = Path(configure.__file__).parent / "configs" / f"{args.config}.toml"
        shutil.copyfile(source if source.exists() else shipped, run_dir / "config.toml")
        if args.set:
            (run_dir / "config.toml").write_text(tomli_w.dumps(config))
    task = configure.task_of(config, maps, str(device))
    schedule = configure.schedule_of(config, max_minutes=args.max_time)
    loop.train(task, replace(schedule, batches_per_step=args.batches), run_dir, device=device)


if __name__ == "__main__":
    sys.exit(main())
