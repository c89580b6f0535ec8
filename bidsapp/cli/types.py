"""Words of the command line turned into values; each function is an argparse ``type``."""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from pathlib import Path

from hyperprep.bidsapp.config import OutputSpace

_MEMORY_FACTORS_GB = {"": 1e-3, "K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}


def participant(text: str) -> str:
    """Read a participant label with or without ``sub-``.

    Examples
    --------
    >>> participant("sub-01"), participant("01")
    ('01', '01')
    """
    return _label(text, "sub-", "participant")


def session(text: str) -> str:
    """Read a session label with or without ``ses-``.

    Examples
    --------
    >>> session("ses-pre")
    'pre'
    """
    return _label(text, "ses-", "session")


def _label(text: str, prefix: str, what: str) -> str:
    label = text.removeprefix(prefix)
    if not re.fullmatch(r"[0-9A-Za-z+]+", label):
        raise ArgumentTypeError(f"{text!r} is no {what} label: a BIDS label has letters and digits only")
    return label


def existing_path(text: str) -> Path:
    """Read a path that must exist; the result is absolute, links are kept."""
    path = any_path(text)
    try:
        there = path.exists()
    except OSError as error:
        raise ArgumentTypeError(f"{path} cannot be looked at: {error.strerror}") from error
    if not there:
        dangling = path.is_symlink()
        raise ArgumentTypeError(
            f"{path} {'is a link whose target is not there' if dangling else 'does not exist'}"
        )
    return path


def existing_file(text: str) -> Path:
    """Read the path of a file that must exist."""
    path = existing_path(text)
    if not path.is_file():
        raise ArgumentTypeError(f"{path} is not a file")
    return path


def existing_folder(text: str) -> Path:
    """Read the path of a folder that must exist."""
    path = existing_path(text)
    if not path.is_dir():
        raise ArgumentTypeError(f"{path} is not a folder")
    return path


def template(text: str) -> str:
    """Read the name of a template, or the path of its file.

    Examples
    --------
    >>> template("MNI152NLin2009cAsym")
    'MNI152NLin2009cAsym'
    """
    if not text.strip():
        raise ArgumentTypeError("the name is empty; give a TemplateFlow name or an image file")
    return text


def any_path(text: str) -> Path:
    """Read a path that may not exist yet; the result is absolute.

    Examples
    --------
    >>> any_path("/a b/c").as_posix()
    '/a b/c'
    """
    if not text.strip():
        raise ArgumentTypeError("the path is empty")
    shown = os.fsencode(text).decode(errors="backslashreplace")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ArgumentTypeError(f"the path {shown} is not UTF-8, which BIDS requires; rename it")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ArgumentTypeError(f"the path {shown} names the home of a user who is not known") from error


def derivative(text: str) -> tuple[str, Path]:
    """Read ``NAME=PATH``, or ``PATH`` alone, which is named after its folder."""
    name, equals, location = text.partition("=")
    if not equals:
        name, location = "", text
    path = existing_path(location)
    if not path.is_dir():
        raise ArgumentTypeError(f"{path} is not a folder; give NAME=FOLDER of a derivative data set")
    name = name or re.sub(r"[^0-9A-Za-z]", "", path.resolve().name)
    if not re.fullmatch(r"[0-9A-Za-z_-]+", name):
        raise ArgumentTypeError(f"{name!r} is no name: use letters, digits, '-' and '_' (NAME=FOLDER)")
    if name == "raw":
        raise ArgumentTypeError("the name 'raw' stands for the input data set; choose another NAME")
    return name, path


def few_shot(text: str) -> tuple[str, Path]:
    """Read ``NAME=PATH`` of a task given by examples; the name becomes a ``desc-`` label."""
    name, equals, location = text.partition("=")
    if not equals or not re.fullmatch(r"[0-9A-Za-z]+", name):
        raise ArgumentTypeError(
            f"{text!r} is not understood: write NAME=FOLDER, with a NAME of letters and digits, which the "
            "results are called after (desc-NAME)"
        )
    path = existing_path(location)
    if not path.is_dir():
        raise ArgumentTypeError(f"{path} is not a folder; give the folder that holds the examples")
    return name, path


def positive_int(text: str) -> int:
    """Read a whole number above zero.

    Examples
    --------
    >>> positive_int("4")
    4
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def memory_gb(text: str) -> float:
    """Read an amount of memory; a bare number is MB, as in fMRIPrep. Returns GB.

    Examples
    --------
    >>> memory_gb("8GB"), memory_gb("8000"), memory_gb("0.5 T")
    (8.0, 8.0, 500.0)
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no amount of memory; write for example 8GB or 8000 (MB)")
    amount = float(match[1]) * _MEMORY_FACTORS_GB[match[2]]
    if amount < 0.5:
        unit = " (a bare number is MB)" if not match[2] else ""
        raise ArgumentTypeError(f"{text!r} is {amount:g} GB{unit}; no scan fits in less than 0.5 GB")
    return round(amount, 6)


def device(text: str) -> str:
    """Read ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Examples
    --------
    >>> device("cuda:1")
    'cuda:1'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"{text!r} is no device; choose auto, cpu, cuda or cuda:N")
    return text


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas.

    Examples
    --------
    >>> names("hippocampus,cortex"), names("16")
    (('hippocampus', 'cortex'), ('16',))
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise ArgumentTypeError(f"{text!r} names nothing; write names separated by spaces or commas")
    return found


def lam(text: str) -> float | None:
    """Read the regularisation weight: a number in [0, 1], or ``auto``, which is ``None``.

    Examples
    --------
    >>> lam("0.3"), lam("auto")
    (0.3, None)
    """
    if text == "auto":
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0.0 <= number <= 1.0:
        raise ArgumentTypeError(f"{text!r} is not possible: lambda is 'auto' or a number from 0 to 1")
    return number


def output_space(text: str) -> OutputSpace:
    """Read ``SPACE`` or ``SPACE:res-N`` with N mm.

    Examples
    --------
    >>> output_space("MNI152NLin2009aSym:res-2").resolution_mm
    2
    """
    name, *modifiers = text.split(":")
    if not re.fullmatch(r"[0-9A-Za-z+]+", name):
        raise ArgumentTypeError(f"{text!r}: {name!r} is no name of a space (letters and digits only)")
    resolution = None
    for modifier in modifiers:
        match = re.fullmatch(r"res-0*([1-9])", modifier)
        if match is None:
            raise ArgumentTypeError(f"{text!r}: {modifier!r} is not understood; only res-1 to res-9 (mm) are")
        resolution = int(match[1])
    return OutputSpace(name, resolution)
