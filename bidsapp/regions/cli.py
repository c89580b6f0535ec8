"""``bidsapp-regions``: teach the segmentation regions of your own, from masks in a BIDS derivative."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from hyperprep import __version__
from hyperprep.bidsapp.cli.raising import BUG, INTERRUPTED
from hyperprep.bidsapp.places import check_weights_dir, check_writable
from hyperprep.bidsapp.regions.find import check_region_examples, find_region_examples
from hyperprep.bidsapp.regions.parser import build_parser
from hyperprep.exceptions import HyperPrepError, OutputError, UsageError, WeightsError
from hyperprep.models.spatial.own_regions import read_class_table
from hyperprep.models.spatial.region_examples import RegionExample

SOME_LEFT_OUT = 1

SCAN_MB = 80
"""What a prepared scan takes on disk, about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(build_parser().parse_args(words), words)
    except HyperPrepError as error:
        print(f"bidsapp-regions: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bidsapp-regions: interrupted; nothing was written into the weights folder.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        print(
            f"bidsapp-regions: unexpected error, {type(error).__name__}: {error}. Nothing of this call is to "
            "be used; please report it with the lines above.",
            file=sys.stderr,
        )
        return BUG


def _run(args: Namespace, words: Sequence[str]) -> int:
    from hyperprep.models.predict.device import explained_memory, pick_device
    from hyperprep.models.weights.resolver import find_weights

    device = str(pick_device(args.device))
    check_weights_dir(args.weights_dir)
    base = find_weights("segment", weights_dir=args.weights_dir)
    examples = find_region_examples(
        args.bids_dir, args.masks_dir, suffix=args.suffix, regions=args.regions,
        participants=args.participant_label,
    )  # fmt: skip
    _check_held_out(args.held_out, examples)
    check_region_examples(examples)
    _check_out(args, base.sha256)
    print(_summary(examples, args.held_out), flush=True)
    _tell_replaced(args.out_dir)
    if args.work_dir:
        check_writable(args.work_dir, "working")
    kept = nullcontext(str(args.work_dir)) if args.work_dir else tempfile.TemporaryDirectory()
    with kept as name, explained_memory(device, "training"):
        _check_space(Path(name), SCAN_MB * len(examples) * (args.variants + 1))
        return _train(args, words, examples, base.sha256, Path(name), device)


def _train(
    args: Namespace,
    words: Sequence[str],
    examples: Sequence[RegionExample],
    base_sha256: str,
    work: Path,
    device: str,
) -> int:
    """Prepare, train, export; returns the exit code."""
    from hyperprep.models.predict.device import torch_threads
    from hyperprep.models.predict.region_examples import prepare_examples
    from hyperprep.models.train.export_regions import RegionTraining, train_regions
    from hyperprep.models.train.regions import RegionTask, read_prepared

    request = [base_sha256, args.variants, args.random_seed, sorted(args.held_out), __version__]
    request += [example.state() for example in examples]
    digest = hashlib.sha256(json.dumps(request).encode()).hexdigest()[:12]
    run = work / f"run-{digest}"
    left_out = prepare_examples(
        examples, work / "prepared", run, variants=args.variants, seed=args.random_seed,
        weights_dir=args.weights_dir, device=device, num_threads=args.nthreads,
        told=partial(print, flush=True),
    )  # fmt: skip
    prepared = {scan.participant for scan in read_prepared(run)[1]}
    task = RegionTask(run, held_out=tuple(one for one in args.held_out if one in prepared), device=device)
    lost = sorted({name for example in examples for name in example.masks} - set(task.regions))
    if lost:
        left_out.append(f"the regions {', '.join(lost)}, which no scan that could be used has.")
    teachers = {scan.participant for scan in task.training}
    with torch_threads(args.nthreads):
        written = train_regions(
            task,
            run,
            args.out_dir,
            training=RegionTraining(steps=args.steps, max_minutes=args.max_time, seed=args.random_seed),
            command=shlex.join(["bidsapp-regions", *words]),
            data=f"scans of {len(teachers)} participants and masks drawn in them",
        )
    print(_result(written, args.out_dir, args.max_time))
    for why in left_out:
        print(f"bidsapp-regions: left out: {why}", file=sys.stderr)
    return SOME_LEFT_OUT if left_out else 0


def _check_out(args: Namespace, base_sha256: str) -> None:
    """Check that the weights can be written, and will be used where they are written.

    Raises
    ------
    OutputError
        When the folder is one of the inputs, or cannot be written.
    UsageError
        When it holds another network ``segment`` than the one trained on.
    """
    from hyperprep.models.weights.resolver import MANIFEST, find_weights, read_manifest

    out = args.out_dir
    if out.resolve() in (args.bids_dir.resolve(), args.masks_dir.resolve()):
        raise OutputError(f"The weights folder {out} is an input. Choose another, such as {out}_weights.")
    blocked = [n for n in (MANIFEST, "regions.safetensors", "regions.md") if (out / n).is_dir()]
    if blocked:
        raise OutputError(f"{out / blocked[0]} is a folder, where a file has to be written. Move it away.")
    if "segment" in read_manifest(out) and find_weights("segment", weights_dir=out).sha256 != base_sha256:
        raise UsageError(
            f"{out} holds a network 'segment' of its own, with which the regions would not work. Choose "
            f"another folder, or train on that network: --weights-dir {out}."
        )
    check_writable(out, "weights")


def _tell_replaced(out_dir: Path) -> None:
    """Say which regions of the folder will be replaced."""
    from hyperprep.models.weights.resolver import read_manifest

    try:
        rows = read_class_table(read_manifest(out_dir).get("regions", {}).get("regions", []))
    except WeightsError:
        rows = ()
    if rows:
        names = ", ".join(region.name for region in rows)
        print(f"The regions in {out_dir} will be replaced: {names}.", flush=True)


def _check_space(folder: Path, needed_mb: float) -> None:
    """Check that the prepared scans have room.

    Raises
    ------
    OutputError
        When not.
    """
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < needed_mb:
        raise OutputError(
            f"Prepared scans take up to {needed_mb / 1000:.1f} GB, and {free_mb / 1000:.1f} GB are free in "
            f"{folder}. Name a folder on another disk with --work-dir, or use fewer --variants."
        )


def _check_held_out(held_out: Sequence[str], examples: Sequence[RegionExample]) -> None:
    """Check that those held out have masks, and that every region is left to somebody else.

    Raises
    ------
    UsageError
        When not.
    """
    known = {example.participant for example in examples}
    unknown = [label for label in held_out if label not in known]
    if unknown:
        raise UsageError(
            f"--held-out: sub-{', sub-'.join(unknown)} has no mask of a region. There are masks of "
            f"sub-{', sub-'.join(sorted(known))}."
        )
    everywhere = {name for example in examples for name in example.masks}
    trained = {name for e in examples if e.participant not in held_out for name in e.masks}
    if everywhere - trained:
        raise UsageError(
            f"--held-out: {', '.join(sorted(everywhere - trained))} would be left without anybody to learn "
            "from. Hold fewer participants out, or leave these regions out with --regions."
        )


def _summary(examples: Sequence[RegionExample], held_out: Sequence[str]) -> str:
    """Say what was found."""
    whose: dict[str, set[str]] = {}
    for example in examples:
        for name in example.masks:
            whose.setdefault(name, set()).add(example.participant)
    lines = [f"{len(examples)} scans, {len(whose)} regions (participants who train, who measure):"]
    for name, participants in sorted(whose.items()):
        testing = len(participants & set(held_out))
        lines.append(f"  {name}: {len(participants) - testing}, {testing}")
    return "\n".join(lines)


def _result(written: Path, out_dir: Path, minutes: float) -> str:
    """Say what was made, how good it is and how it is used."""
    from hyperprep.models.weights.resolver import read_manifest

    entry = read_manifest(out_dir)["regions"]
    scores = {key.removeprefix("val_"): value for key, value in entry["scores"].items() if key != "val_mean"}
    spent = entry["training_seconds"]
    lines = [f"{written}: {entry['steps']} steps in {spent} s."]
    if spent >= 60 * minutes - 1:
        lines.append("  --max-time ended the training; with a larger one and --work-dir it goes on.")
    lines += [f"  {name}: Dice {value:.3f} in participants held out" for name, value in scores.items()]
    unmeasured = [name for name in entry["annotated"] if name not in scores]
    if unmeasured:
        lines.append(
            f"  Not measured: {', '.join(unmeasured)}; nobody held out (--held-out) has a mask of it that "
            "fills a voxel of 2 mm."
        )
    names = " ".join(shlex.quote(str(row["name"]).lower()) for row in entry["regions"][:3])
    folder = shlex.quote(str(out_dir))
    lines.append(f"Use them: bidsapp BIDS_DIR OUTPUT_DIR participant --weights-dir {folder} --labels {names}")
    return "\n".join(lines)
