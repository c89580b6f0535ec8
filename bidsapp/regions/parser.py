"""The command line of ``bidsapp-regions``."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter

from hyperprep import __version__
from hyperprep.bidsapp.cli import types
from hyperprep.bidsapp.cli.raising import RaisingParser

MOST_THREADS = 512

_DESCRIPTION = "Teach the segmentation regions of your own, from masks in a BIDS derivative."

_EPILOG = """\
Masks are files such as sub-01/anat/sub-01_label-Claustrum_mask.nii.gz, one for each region, or a
..._dseg.nii.gz with a table of its numbers. Not every region has to be drawn in every participant.

  bidsapp-regions /data/study /data/study/derivatives/manual weights --held-out 07 08
  bidsapp /data/study /data/out participant --weights-dir weights --labels all claustrum
"""


def build_parser() -> ArgumentParser:
    """Build the parser of ``bidsapp-regions``."""
    parser = RaisingParser(
        prog="bidsapp-regions", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bids_dir", type=types.existing_folder, metavar="BIDS_DIR", help="the scans")
    parser.add_argument("masks_dir", type=types.existing_folder, metavar="MASKS_DIR",
                        help="BIDS derivative with the masks (and the scans, if preprocessed)")  # fmt: skip
    parser.add_argument("out_dir", type=types.any_path, metavar="WEIGHTS_DIR",
                        help="receives the weights; give it to bidsapp as --weights-dir")  # fmt: skip
    parser.add_argument("--regions", nargs="+", default=[], metavar="NAME",
                        help="only these, as files or tables name them (all)")  # fmt: skip
    parser.add_argument("--participant-label", "--participant_label", type=types.participant, nargs="+",
                        default=[], metavar="LABEL", help="only these participants (all)")  # fmt: skip
    parser.add_argument("--held-out", type=types.participant, nargs="+", default=[], metavar="LABEL",
                        help="participants who measure the result and do not train")  # fmt: skip
    parser.add_argument(
        "--suffix", type=_suffix, default="T1w", help="which images the masks were drawn on (default: T1w)"
    )
    parser.add_argument("--variants", type=_count, default=1, metavar="N",
                        help="altered copies of each scan: brightness, alignment (default: 1)")  # fmt: skip
    parser.add_argument("--steps", type=types.positive_int, default=1500, metavar="N",
                        help="most training steps (default: 1500)")  # fmt: skip
    parser.add_argument("--max-time", type=_minutes, default=20.0, metavar="MINUTES",
                        help="most minutes of training, without the preparation (default: 20)")  # fmt: skip
    parser.add_argument("--weights-dir", type=types.existing_folder, metavar="DIR",
                        help="searched first for the network 'segment'")  # fmt: skip
    parser.add_argument("-w", "--work-dir", type=types.any_path, metavar="DIR",
                        help="keep prepared scans (80 MB for each and variant) and checkpoints here, so a "
                        "second call goes on (default: a temporary folder)")  # fmt: skip
    parser.add_argument("--device", type=types.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--nthreads", type=_threads, metavar="N", help="processor threads")
    parser.add_argument(
        "--random-seed",
        "--random_seed",
        type=_count,
        default=0,
        metavar="N",
        help="seed of everything random",
    )
    parser.add_argument("--version", action="version", version=f"HyperPrep {__version__}")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ArgumentTypeError(f"{text!r} is no whole number from 0 to 999999999")
    return int(text)


def _threads(text: str) -> int:
    count = types.positive_int(text)
    if count > MOST_THREADS:
        raise ArgumentTypeError(f"{text} threads are more than {MOST_THREADS}")
    return count


def _suffix(text: str) -> str:
    if not re.fullmatch("[0-9A-Za-z]+", text) or text in ("mask", "dseg", "probseg"):
        raise ArgumentTypeError(f"{text!r} is no suffix of a scan: write T1w, T2w, FLAIR or the like")
    return text


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r}: write a number of minutes above 0")
    return value
