"""The standard brain that a run is asked to use: found, never downloaded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from hyperprep.bidsapp.config import DEFAULT_TEMPLATE
from hyperprep.bidsapp.environment import templateflow_home
from hyperprep.exceptions import HyperPrepError, TemplateError
from hyperprep.workflows.settings import Template

#: Ways in which TemplateFlow writes "1 mm", best first; the empty one is a template without ``res-``.
_RESOLUTIONS = ("_res-01", "_res-1", "", "_res-02", "_res-2")


def find_template(wanted: str) -> Template:
    """Find a template by its TemplateFlow name or as a file.

    The default template is the one that nilearn carries. It is the left-right symmetric release 2009a of
    the ICBM152 average, hence ``MNI152NLin2009aSym``.

    Parameters
    ----------
    wanted
        TemplateFlow name such as ``MNI152NLin2009cAsym``, or path of an image.

    Returns
    -------
    Template
        Its space's name, image and, if there is one, brain mask.

    Raises
    ------
    TemplateError
        If it is neither a file nor in TemplateFlow's local cache.

    Examples
    --------
    >>> find_template("MNI152NLin2009aSym").name
    'MNI152NLin2009aSym'
    """
    if wanted == DEFAULT_TEMPLATE:
        return Template(name=DEFAULT_TEMPLATE)
    path = Path(wanted).expanduser()
    if is_file_name(wanted):
        return _from_file(path)
    return _from_templateflow(wanted, templateflow_home())


def is_file_name(wanted: str) -> bool:
    """Say whether a template was given as a file, not by its TemplateFlow name.

    Examples
    --------
    >>> is_file_name("mean.nii.gz"), is_file_name("MNI152NLin6Asym")
    (True, False)
    """
    return "/" in wanted or wanted.endswith((".nii", ".nii.gz", ".mgz"))


def _from_file(path: Path) -> Template:
    """Take a file; its space is named after ``tpl-`` in its name, or after the name itself."""
    if not path.is_file():
        raise TemplateError(f"template: there is no file {path}; give a file or a TemplateFlow name")
    _refuse_empty(path)
    entity = re.match(r"tpl-([0-9A-Za-z+]+)_", path.name)
    name = entity[1] if entity else re.sub(r"[^0-9A-Za-z]", "", path.name.split(".")[0])
    if not name:
        raise TemplateError(f"template: no name of a space can be made from {path.name!r}; rename the file")
    mask = _mask_beside(path)
    return Template(name=name, image=path.absolute(), mask=mask, uri=path.absolute().as_uri())


def _from_templateflow(name: str, home: Path) -> Template:
    """Look a name up in TemplateFlow's cache on this disk.

    Raises
    ------
    TemplateError
        If the cache does not hold the T1-weighted image itself (an empty place-holder does not count).
    """
    folder = home / f"tpl-{name}"
    if not re.fullmatch(r"[0-9A-Za-z+]+", name) or not folder.is_dir():
        held = sorted(p.name[4:] for p in home.glob("tpl-*") if _t1w_images(p)) if home.is_dir() else []
        raise TemplateError(
            f"template {name!r} is unknown: neither a file nor a folder of the TemplateFlow cache {home}. "
            f"Available: {', '.join([DEFAULT_TEMPLATE, *held])}. {_how_to_fetch(name)}"
        )
    images = _t1w_images(folder)
    if not images:
        raise TemplateError(
            f"template {name!r}: the TemplateFlow cache {folder} has no T1w image in it (only the name, or "
            f"an empty place-holder). {_how_to_fetch(name)}"
        )
    image = images[0]
    return Template(name=name, image=image.absolute(), mask=_mask_beside(image))


def _t1w_images(folder: Path) -> list[Path]:
    """List the template's T1w images with content, the finest grid first."""
    name = folder.name
    candidates = [folder / one for one in t1w_names(name.removeprefix("tpl-"))]
    return [path for path in candidates if path.is_file() and path.stat().st_size > 0]


def t1w_names(name: str) -> list[str]:
    """List the file names of a template's T1w image that can be used, the finest grid first.

    Examples
    --------
    >>> t1w_names("Mine")[:2]
    ['tpl-Mine_res-01_T1w.nii.gz', 'tpl-Mine_res-01_T1w.nii']
    """
    return [f"tpl-{name}{res}_T1w{ext}" for res in _RESOLUTIONS for ext in (".nii.gz", ".nii")]


def mask_beside(image: Path) -> Path:
    """Name the brain mask that would lie beside a template, as TemplateFlow names it.

    Examples
    --------
    >>> mask_beside(Path("tpl-Mine_res-1_T1w.nii.gz")).name
    'tpl-Mine_res-1_desc-brain_mask.nii.gz'
    """
    stem, _, extension = image.name.partition(".")
    prefix = stem.rsplit("_", 1)[0] if "_" in stem else stem
    return image.with_name(f"{prefix}_desc-brain_mask.{extension}")


def _mask_beside(image: Path) -> Path | None:
    mask = mask_beside(image)
    return mask.absolute() if mask.is_file() and mask.stat().st_size > 0 else None


def check_template(template: Template) -> Template:
    """Read a template's files once, so that one that cannot be used is told before anything is computed.

    Parameters
    ----------
    template
        What :func:`find_template` gives.

    Returns
    -------
    Template
        With its number of voxels.

    Raises
    ------
    ScanError, NoInputError
        If the image is no three-dimensional volume, or truncated, or the mask is empty.
    """
    from hyperprep.models.spatial.images import read_mask, read_scan

    if template.image is None:
        return template
    try:
        image = read_scan(template.image)
        if template.mask is not None:
            read_mask(template.mask, like=image)
    except HyperPrepError as error:
        raise type(error)(f"template {template.name}: {error}") from error
    return replace(template, voxels=int(np.prod(image.shape)))


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise TemplateError(f"template: the file {path} is empty; fetch it again")


def _how_to_fetch(name: str) -> str:
    return (
        "Nothing is downloaded during a run; on a machine with network fetch it by the same command with "
        f"--prefetch (or: bidsapp . . participant --template {name} --prefetch), and point "
        "TEMPLATEFLOW_HOME at that cache"
    )
