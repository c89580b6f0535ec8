"""``--prefetch``: fetch what a run with the same options needs and this machine lacks. A run never does."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from hyperprep.bidsapp.config import DEFAULT_TEMPLATE, Settings
from hyperprep.bidsapp.environment import templateflow_home
from hyperprep.bidsapp.places import check_writable
from hyperprep.bidsapp.preflight import check_weights, choose_spaces
from hyperprep.bidsapp.template import (
    check_template,
    find_template,
    is_file_name,
    mask_beside,
    t1w_names,
)
from hyperprep.exceptions import HyperPrepError, TemplateError
from hyperprep.workflows.settings import Template


class Client(Protocol):
    """What is used of TemplateFlow's client (``templateflow.api``)."""

    def ls(self, template: str, **query: Any) -> Sequence[Path]:
        """List a template's files in the cache, place-holders among them."""

    def get(self, template: str, **query: Any) -> Any:
        """Download a template's files into the cache."""

    def templates(self, **query: Any) -> Sequence[str]:
        """List the names of templates."""


def run_prefetch(settings: Settings, client: Client | None = None) -> int:
    """Fetch the template, look for the weights, and say what was done.

    Parameters
    ----------
    settings
        Settings of the run that will follow.
    client
        TemplateFlow's client; the installed one when not given.

    Returns
    -------
    int
        0: a run with these settings needs no network.

    Raises
    ------
    HyperPrepError
        If something cannot be fetched, or is missing and cannot be fetched at all.
    """
    print(f"weights: {len(check_weights(settings.weights_dir))} networks are there and whole")
    name = settings.template
    fetched: list[Path] = []
    if name == DEFAULT_TEMPLATE:
        print(f"template {name}: part of the installation")
    elif is_file_name(name):
        print(f"template {name}: a file, nothing to fetch")
    else:
        fetched = fetch_template(name, templateflow_home(), client)
    template = check_template(find_template(name))
    choose_spaces(settings, template)
    for path in filter(None, (template.image, template.mask)):
        print(f"template {name}: {path} ({'fetched' if path in fetched else 'was there'})")
    print(f"HyperPrep fetched {len(fetched)} file(s); a run with these options needs no network")
    return 0


def fetch_template(name: str, home: Path, client: Client | None = None) -> list[Path]:
    """Fetch a template's T1w image, the finest that a run would take, and its brain mask.

    A file that is there and whole is not fetched again; half a file, left by a download that was cut off, is.

    Parameters
    ----------
    name
        TemplateFlow name.
    home
        Folder of TemplateFlow's cache, which the client uses too.
    client
        TemplateFlow's client; the installed one when not given.

    Returns
    -------
    list of Path
        Files that were fetched.

    Raises
    ------
    TemplateError
        If TemplateFlow has no such template, or it cannot be fetched whole.
    OutputError
        If the cache cannot be written.
    """
    check_writable(home, "TemplateFlow cache (TEMPLATEFLOW_HOME)")
    client = client or _installed_client()
    known = {path.name: path for path in client.ls(name, suffix="T1w", desc=None)}
    wanted = next((known[one] for one in t1w_names(name) if one in known), None)
    if wanted is None:
        raise TemplateError(_unknown(name, sorted(known), client))
    mask = mask_beside(wanted)
    has_mask = mask in client.ls(name, suffix="mask", desc="brain")
    fetched = []
    if _fetch(client, name, wanted, Template(name, wanted), suffix="T1w", desc=None):
        fetched.append(wanted.absolute())
    if has_mask and _fetch(client, name, mask, Template(name, wanted, mask), suffix="mask", desc="brain"):
        fetched.append(mask.absolute())
    return fetched


def _installed_client() -> Client:
    client: Any = importlib.import_module("templateflow.api")
    return client


def _fetch(client: Client, name: str, path: Path, holder: Template, **query: Any) -> bool:
    """Fetch one file unless it is there and whole; say whether it was fetched."""
    if _reason_against(holder) is None:
        return False
    _empty(path)
    resolution = re.search(r"_res-0*(\d+)_", path.name)
    query |= {"resolution": int(resolution[1]) if resolution else None}
    try:
        client.get(name, extension=path.name[path.name.index(".") :], **query)
    except Exception as error:  # the client raises what requests, DataLad and the file system raise
        _empty(path)
        raise TemplateError(
            f"template {name!r}: {path.name} could not be fetched ({type(error).__name__}: {error}). Check "
            f"the network of this machine, or copy the file to {path}"
        ) from error
    reason = _reason_against(holder)
    if reason is not None:
        _empty(path)
        raise TemplateError(f"template {name!r}: what was fetched is no whole image: {reason}")
    return True


def _reason_against(template: Template) -> str | None:
    """Say why a template's files cannot be used, or return None."""
    try:
        check_template(template)
    except HyperPrepError as error:
        return str(error)
    return None


def _empty(path: Path) -> None:
    """Make a file a place-holder again, for the client takes any file with content for a whole one."""
    if path.is_file() and not path.is_symlink():
        path.write_bytes(b"")


def _unknown(name: str, images: Sequence[str], client: Client) -> str:
    if images:
        return (
            f"template {name!r}: TemplateFlow has {', '.join(images[:6])} of it, but none of "
            f"{', '.join(t1w_names(name))}; give one of its images as a file"
        )
    return (
        f"template {name!r} is unknown to TemplateFlow, or has no T1w image there; those that have: "
        f"{', '.join(client.templates(suffix='T1w'))}"
    )
