"""What earlier steps left on disk about one participant: figures, quality figures, logs, methods text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WARNINGS = re.compile(r'data-warnings="(\d+)"')
_BODY = re.compile(r"<body[^>]*>(.*?)</body>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Crash:
    """A crash file.

    Attributes
    ----------
    node
        Name of the step.
    path
        The file.
    text
        Its content, cut to the last lines when it is long.
    """

    node: str
    path: Path
    text: str

    @classmethod
    def read(cls, path: Path, *, most_lines: int = 120) -> Crash:
        """Read a text crash file; what cannot be read is said in its place."""
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            lines = [f"(cannot be read: {error})"]
        first = lines[0] if lines else ""
        node = first.removeprefix("Node:").strip() if first.startswith("Node:") else path.stem
        if len(lines) > most_lines:
            lines = [lines[0], f"... {len(lines) - most_lines} lines left out ...", *lines[1 - most_lines :]]
        return cls(node, path, "\n".join(lines))


@dataclass(frozen=True)
class Record:
    """What is known of one participant.

    Attributes
    ----------
    subject
        Label without ``sub-``.
    figures
        Figures and fragments below ``sub-<label>/figures``.
    quality
        Content of every ``quality`` JSON by the scan's entities.
    remarks, validator
        What the run noticed about the inputs, and what the BIDS validator said.
    problems
        Why scans were not processed, as the run that looked at the inputs last found.
    crashes
        Crash files of that run.
    methods
        Methods text as HTML, or empty.
    """

    subject: str
    figures: tuple[Path, ...] = ()
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    validator: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    crashes: tuple[Crash, ...] = ()
    methods: str = ""

    @classmethod
    def read(cls, output_dir: Path, subject: str, run_uuid: str) -> Record:
        """Collect everything of one participant.

        Parameters
        ----------
        output_dir
            Root of the derivatives.
        subject
            Label without ``sub-``.
        run_uuid
            Name of this run. Where it did not look at the inputs (``--reports-only``), the last one that
            did counts.
        """
        folder = output_dir / f"sub-{subject}"
        figures = sorted(
            path for path in (folder / "figures").glob(f"sub-{subject}_*") if path.suffix in _KINDS
        )
        files = sorted([*folder.glob("anat/*_quality.json"), *folder.glob("ses-*/anat/*_quality.json")])
        log = _last_processing(folder / "log", run_uuid)
        inputs = _json(log / "inputs.json")
        return cls(
            subject=subject,
            figures=tuple(figures),
            quality={path.name.removesuffix("_quality.json"): _json(path) for path in files},
            remarks=_sentences(inputs.get("remarks")),
            validator=_sentences(inputs.get("validator")),
            problems=_sentences(inputs.get("problems")),
            crashes=tuple(Crash.read(path) for path in sorted(log.glob("crash*.txt"))),
            methods=_methods(output_dir / "logs" / log.name) or _methods(output_dir / "logs"),
        )

    def drawn(self) -> set[str]:
        """Kinds of figures (their ``desc``) that every scan has."""
        kinds: dict[str, set[str]] = {}
        for path in self.figures:
            match = re.match(r"(.*)_desc-([a-zA-Z0-9]+)_", path.name)
            if match:
                kinds.setdefault(match[1], set()).add(match[2])
        return set.intersection(*kinds.values()) if kinds else set()

    def scans(self) -> int:
        """Count the scans with a summary."""
        return sum("_desc-summary_" in path.name for path in self.figures)

    def warnings(self) -> int:
        """Count the warnings in all summaries."""
        texts = [path.read_text(errors="replace") for path in self.figures if "_desc-summary_" in path.name]
        return sum(int(match[1]) for text in texts if (match := _WARNINGS.search(text)))

    def weights(self) -> dict[str, set[str]]:
        """Digests of the weights by name of the step that used them."""
        used: dict[str, set[str]] = {}
        for figures in self.quality.values():
            for key, value in figures.items():
                if key.endswith("_weights_sha256") and isinstance(value, str):
                    used.setdefault(key.removesuffix("_weights_sha256"), set()).add(value)
        return used


_KINDS = (".svg", ".html")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_processing(logs: Path, run_uuid: str) -> Path:
    """Find the log folder of this run, or of the last run that looked at the inputs."""
    files = [logs / run_uuid / "inputs.json", *sorted(logs.glob("*/inputs.json"), reverse=True)]
    return next((path.parent for path in files if path.is_file()), logs / run_uuid)


def _sentences(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _methods(logs: Path) -> str:
    """Body of ``CITATION.html``."""
    try:
        match = _BODY.search((logs / "CITATION.html").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return match[1].strip() if match else ""
