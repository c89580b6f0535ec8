"""One self-contained page per participant, assembled by NiReports from the figures on disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nireports.assembler.report import Report

from hyperprep.bidsapp.reports.fragments import about_fragment, status_fragment
from hyperprep.bidsapp.reports.inline import inline_figures, require_self_contained
from hyperprep.bidsapp.reports.record import Record
from hyperprep.models.spatial.files import replacing

_FOLDER = Path(__file__).parent
_ORDERING = re.compile(r"^Reports for: (.*)\.$")
_ENTITY = re.compile(r'(\w+) <span class="bids-entity">(.*?)</span>')


def write_participant_report(
    output_dir: Path,
    subject: str,
    *,
    run_uuid: str,
    settings: Mapping[str, Any],
    errors: Sequence[str],
) -> Path:
    """Write ``sub-<label>.html``: complete, or not at all.

    The page holds all its figures and needs no network. It is written for participants that failed too, and
    then begins with what failed and what to do.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    subject
        Participant, with or without ``sub-``.
    run_uuid
        Name of this run.
    settings
        Settings of the run, plain values.
    errors
        Reasons why something of this participant failed, in words; empty if nothing did.

    Returns
    -------
    The page.

    Raises
    ------
    OutputError
        The page cannot be written.
    """
    label = subject.removeprefix("sub-")
    output_dir = Path(output_dir)
    record = Record.read(output_dir, label, run_uuid)
    target = output_dir / f"sub-{label}.html"
    with TemporaryDirectory(prefix="hyperprep_report_") as folder:
        stage = Path(folder).resolve()
        figures = stage / f"sub-{label}" / "figures"
        figures.mkdir(parents=True)
        for path in record.figures:
            shutil.copyfile(path, figures / path.name)
        for desc, text in (
            ("status", status_fragment(record, errors)),
            ("about", about_fragment(record, settings, run_uuid=run_uuid)),
        ):
            (figures / f"sub-{label}_desc-{desc}_T1w.html").write_text(text, encoding="utf-8")
        page = inline_figures(assemble(stage, label, run_uuid), stage)
    require_self_contained(page, target)
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def assemble(stage: Path, label: str, run_uuid: str) -> str:
    """Let NiReports put figures and fragments in order.

    Parameters
    ----------
    stage
        Folder with ``sub-<label>/figures``; NiReports writes into it.
    label
        Participant, without ``sub-``.
    run_uuid
        Name of this run.

    Returns
    -------
    HTML that refers to its figures by names relative to ``stage``.
    """
    report = Report(
        stage,
        run_uuid,
        bootstrap_file=_FOLDER / "spec.yml",
        out_filename=f"sub-{label}.html",
        plugins=[],
        metadata={"template_path": str(_FOLDER / "report.tpl")},
        subject=label,
    )
    for section in report.sections:
        for reportlet in section.reportlets:
            reportlet.title = scan_title(reportlet.title) if reportlet.title else None
    report.generate_report()
    return Path(report.out_filename).read_text(encoding="utf-8")


def scan_title(title: str) -> str:
    """Shorten what NiReports calls a group of figures.

    Examples
    --------
    >>> scan_title('Reports for: session <span class="bids-entity">pre</span>.')
    'Session pre'
    >>> scan_title("Methods")
    'Methods'
    """
    match = _ORDERING.match(title)
    if not match:
        return title
    text = ", ".join(f"{name} {value}" for name, value in _ENTITY.findall(match[1]))
    return text[:1].upper() + text[1:]
