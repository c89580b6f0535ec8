"""Parts of a participant's page that are words: how the run went, and how to reproduce and cite it."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata
from typing import Any

from hyperprep import __version__
from hyperprep.bidsapp.reports.record import Crash, Record

PACKAGES = (
    "nipype", "niworkflows", "nireports", "pybids", "nibabel", "nilearn", "numpy", "scipy", "SimpleITK",
    "torch", "matplotlib",
)  # fmt: skip
"""Distributions whose versions are told."""

FIGURES = {
    "summary": "summary",
    "alignment": "alignment",
    "segmentation": "segmentation",
    "grid": "warped grid",
    "jacobian": "Jacobian map",
    "curve": "λ curve",
    "slider": "registration at every λ",
}
"""Figures that a complete participant has."""


def status_fragment(record: Record, errors: Sequence[str]) -> str:
    """How the run went: what failed and what to do, or that all is well.

    Parameters
    ----------
    record
        What is on disk.
    errors
        Reasons why something failed, in words.

    Returns
    -------
    HTML.
    """
    crashed = [f"{crash.node} crashed, see {crash.path}" for crash in record.crashes]
    failures = list(errors) or [*record.problems, *crashed]
    parts = [_failed(record, failures) if failures else _finished(record)]
    if record.validator:
        parts.append(
            '<div class="hp-status hp-failed"><strong>The BIDS validator says of the input</strong>'
            f"{_list(record.validator)}</div>"
        )
    if record.remarks:
        parts.append(f"<div><strong>Good to know</strong>{_list(record.remarks, kind='hp-notes')}</div>")
    return "\n".join(parts) + "\n"


def _failed(record: Record, failures: Sequence[str]) -> str:
    missing = [name for kind, name in FIGURES.items() if kind not in record.drawn()]
    head = "One thing failed" if len(failures) == 1 else f"{len(failures)} things failed"
    kept = (
        f"Not in this report: {', '.join(missing)}."
        if missing
        else "Figures below may come from an earlier run."
    )
    return (
        f'<div class="hp-status hp-failed" role="alert"><strong>sub-{escape(record.subject)} did not finish. '
        f"{head}:</strong>{_list(failures)}"
        f"<p>{escape(kept)} Results that were finished are kept.</p>"
        "<p><strong>What to do:</strong> correct what is named above and start the run again with the "
        "same output and work folder; finished steps are not repeated. Crash files with all details are "
        'listed under <a href="#About">About</a>.</p></div>'
    )


def _finished(record: Record) -> str:
    scans = record.scans()
    if not scans:
        return (
            '<div class="hp-status hp-failed" role="alert"><strong>There is nothing to show.</strong>'
            f"<p>No figure of sub-{escape(record.subject)} was found. Run the participant level first, or "
            "look into the log.</p></div>"
        )
    warnings = record.warnings()
    missing = [name for kind, name in FIGURES.items() if kind not in record.drawn()]
    if missing:
        return (
            '<div class="hp-status hp-failed" role="alert"><strong>This report is not complete.</strong>'
            f"<p>Not in it: {', '.join(missing)}. An earlier run may have failed: look into its log, or run "
            "the participant level again.</p></div>"
        )
    done = "One scan was" if scans == 1 else f"{scans} scans were"
    if warnings:
        count = "There is one warning" if warnings == 1 else f"There are {warnings} warnings"
        return (
            f'<div class="hp-status hp-failed"><strong>{done} processed. {count}: read below first.</strong>'
            "</div>"
        )
    return f'<div class="hp-status"><strong>{done} processed without warnings.</strong></div>'


def about_fragment(record: Record, settings: Mapping[str, Any], *, run_uuid: str) -> str:
    """Run settings, weights, versions, methods text with citations, crash files.

    Parameters
    ----------
    record
        What is on disk.
    settings
        Settings of the run, plain values.
    run_uuid
        Name of the run.

    Returns
    -------
    HTML.
    """
    run = {
        "HyperPrep": __version__,
        "Run": run_uuid,
        "Report written": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
    }
    chosen = {key: _text(value) for key, value in settings.items() if _text(value)}
    weights = {name: ", ".join(sorted(digests)) for name, digests in sorted(record.weights().items())}
    parts = ["<h4>Run and settings</h4>", _table({**run, **chosen})]
    parts.append("<h4>Network weights used (SHA-256)</h4>")
    parts.append(_table(weights) if weights else "<p>No weights are recorded in the results.</p>")
    parts += ["<h4>Versions</h4>", _table(versions())]
    parts.append("<h4>Methods text with citations</h4>")
    if record.methods:
        parts.append(
            '<p data-copy="hp-methods">To be copied into a manuscript, unchanged. </p>'
            f'<div class="hp-methods" id="hp-methods">{record.methods}</div>'
        )
    else:
        parts.append("<p>No methods text was found in <code>logs/CITATION.html</code>.</p>")
    parts.append("<h4>Errors</h4>")
    parts += [_crash(crash) for crash in record.crashes] or ["<p>This run left no crash file.</p>"]
    return "\n".join(parts) + "\n"


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter, without importing them.

    Examples
    --------
    >>> "Python" in versions() and "numpy" in versions()
    True
    """
    found = {"Python": platform.python_version(), "System": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _crash(crash: Crash) -> str:
    return (
        f"<details><summary>{escape(crash.node)}</summary><p><code>{escape(str(crash.path))}</code></p>"
        f"<pre>{escape(crash.text)}</pre></details>"
    )


def _list(sentences: Sequence[str], *, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<ul{attribute}>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td><code>{escape(value)}</code></td></tr>'
        for key, value in rows.items()
    )
    return f'<table class="hp-table hp-pairs"><tbody>{cells}</tbody></table>'


def _text(value: Any) -> str:
    """Put a setting into words; empty for what was not set."""
    if value is None or value == "" or (isinstance(value, list | tuple | dict) and not value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
