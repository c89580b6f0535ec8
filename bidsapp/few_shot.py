"""Tasks given by examples: which files of a folder are the examples, and whether they can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hyperprep.bidsapp.named_files import NamedFile, images_of
from hyperprep.bidsapp.query import ParticipantInput
from hyperprep.exceptions import HyperPrepError, NoInputError, UsageError, WeightsError
from hyperprep.workflows.settings import FewShotTask

NETWORK = "neuralizer"
INPUT_SUFFIX = "T1w"
#: Which image of a subject is the input, best first.
_INPUT_DESCS = ("preproc", None)


def check_few_shot_weights(weights_dir: Path | None) -> Mapping[str, str]:
    """Find and verify the weights that few-shot tasks need.

    Returns
    -------
    mapping
        sha256 by the network's name.

    Raises
    ------
    WeightsError
        If there are none that can be used; says how to make them.
    """
    from hyperprep.models.weights import find_weights

    try:
        return {NETWORK: find_weights(NETWORK, weights_dir=weights_dir).sha256}
    except WeightsError as error:
        raise WeightsError(
            f"--few-shot needs the network {NETWORK!r}, whose weights were not found. Install the package "
            "again, or train them (docs/training.md) and give their folder: "
            f"python -m hyperprep.models.train run {NETWORK}_small --maps MAPS --run-dir runs/{NETWORK}; "
            f"python -m hyperprep.models.train export runs/{NETWORK} --out FOLDER; "
            f"then --weights-dir FOLDER. Found: {error}"
        ) from error


def find_task(name: str, folder: Path) -> FewShotTask:
    """Find the examples of a task in a BIDS derivative and check every one of them.

    The output of an example is the image with ``desc-NAME``; where no subject has one, the subject's only
    mask apart from its brain mask. The input is the T1w image on the same grid, preprocessed or as it is.
    Subjects without an output are no examples.

    Parameters
    ----------
    name
        Name of the task.
    folder
        Root of the derivative.

    Returns
    -------
    FewShotTask
        With kind and files.

    Raises
    ------
    NoInputError
        If there is no pair of input and output.
    UsageError, ScanError
        If pairs cannot be used; says which and why.
    """
    from hyperprep.models.spatial.examples import Example, check_examples

    files = images_of(folder)
    if not files:
        raise NoInputError(
            f"--few-shot {name}={folder}: there is no image in folders called sub-<label>. Put, for each "
            f"example, sub-01/anat/sub-01_{INPUT_SUFFIX}.nii.gz and "
            f"sub-01/anat/sub-01_desc-{name}_mask.nii.gz there."
        )
    outputs = _outputs(name, folder, files)
    examples, missing = [], []
    for output in outputs:
        given = _input_of(output, files)
        if given is None:
            missing.append(output.path.name)
            continue
        brain = [
            f.path for f in files
            if f.subject == output.subject and f.suffix == "mask" and f.desc == "brain"
            and f.entities.get("space") == output.entities.get("space") and f is not output
        ]  # fmt: skip
        examples.append(Example(output.subject, (given.path,), output.path, brain[0] if brain else None))
    if missing:
        raise NoInputError(
            f"--few-shot {name}={folder}: {', '.join(missing)} has no input beside it. Put the image it was "
            f"made from (<subject>_{INPUT_SUFFIX}.nii.gz) into the same folder."
        )
    try:
        kind = check_examples(examples)
    except HyperPrepError as error:
        raise type(error)(f"--few-shot {name}={folder}: {error}") from error
    return FewShotTask(
        name=name,
        kind=kind,
        inputs=tuple(e.inputs[0] for e in examples),
        outputs=tuple(e.output for e in examples),
        masks=tuple(e.mask for e in examples),
        labels=tuple(e.label for e in examples),
        suffix=outputs[0].suffix if kind == "image" else INPUT_SUFFIX,
    )


def _outputs(name: str, folder: Path, files: Sequence[NamedFile]) -> list[NamedFile]:
    """Give the output of every example, one per subject and session."""
    found = [f for f in files if f.desc == name]
    if not found:
        found = [f for f in files if f.is_mask() and f.desc != "brain" and "space" not in f.entities]
    if not found:
        seen = sorted({f.path.name.split("_", 1)[1] for f in files})
        raise NoInputError(
            f"--few-shot {name}={folder}: no pair of input and output was found. The output of an example is "
            f"called sub-<label>_desc-{name}_mask.nii.gz (or desc-{name} with another suffix). "
            f"Files there end in: {', '.join(seen[:8])}."
        )
    by_subject: dict[str, list[NamedFile]] = {}
    for one in found:
        by_subject.setdefault(one.subject, []).append(one)
    several = {subject: ones for subject, ones in by_subject.items() if len(ones) > 1}
    if several:
        subject, ones = next(iter(several.items()))
        raise UsageError(
            f"--few-shot {name}={folder}: {subject} has several files that could be the output: "
            f"{', '.join(one.path.name for one in ones)}. Call the one that is meant desc-{name}."
        )
    return found


def _input_of(output: NamedFile, files: Sequence[NamedFile]) -> NamedFile | None:
    """Find the image that an output was made from."""
    for desc in _INPUT_DESCS:
        for one in files:
            same = one.subject == output.subject and one is not output
            placed = one.entities.get("space") == output.entities.get("space")
            if same and placed and one.suffix == INPUT_SUFFIX and one.desc == desc:
                return one
    return None


def tell_own_examples(
    inputs: Sequence[ParticipantInput], tasks: Sequence[FewShotTask]
) -> tuple[ParticipantInput, ...]:
    """Say of participants that are examples themselves what follows from it.

    Their own answer is not shown to the network; a participant who is the only example of a task gets a
    problem, for the task cannot be done.
    """
    told = []
    for participant in inputs:
        for task in tasks:
            left = task.without(participant.label)
            if len(left.labels) == len(task.labels):
                continue
            who = f"few-shot task {task.name}: sub-{participant.label} is one of the examples"
            if left.labels:
                remark = f"{who}; its own output was not shown to the network"
                participant = replace(participant, remarks=(*participant.remarks, remark))
            else:
                problem = (
                    f"{who}, and the only one, so nothing is left to learn from. Add another example, or "
                    "rename it if it is somebody else"
                )
                participant = replace(participant, problems=(*participant.problems, problem))
        told.append(participant)
    return tuple(told)
