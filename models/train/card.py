"""Model cards: what a manifest entry says, for readers."""

from __future__ import annotations

from typing import Any

_MEASURED = {
    "": "hard Dice (or, where named so, PSNR in dB)",
    "topology": "parts of the bound (nats per voxel), prior and local correlation",
}


_SYNTHETIC = (
    "on synthetic images of heads kept out of training",
    "Adult heads only; no pathology was seen in training.",
)
_OWN = (
    "on the atlas, in scans of participants kept out of training",
    "For scans like those it was trained on; it finds a region only near where it was drawn.",
)


def model_card(name: str, entry: dict[str, Any]) -> str:
    """Write the model card of a manifest entry in Markdown.

    Examples
    --------
    >>> from hyperprep.models.weights import resolver
    >>> entry = resolver.read_manifest(resolver.package_dir())["segment"]
    >>> model_card("segment", entry).splitlines()[0]
    '# segment'
    """
    tested, limits = _OWN if name == "regions" else _SYNTHETIC
    extra = "".join(
        f"- {title}: {entry[key]}\n"
        for key, title in (
            ("hyperparameters", "Hyperparameters"),
            ("low_rank", "Last layer, factorised"),
            ("calibration", "Calibration of the probabilities"),
            ("begun_from", "Begun from weights of its own kind"),
            ("base_sha256", "Reads the features of the network `segment` with the sha256"),
            ("annotated", "Regions, and in how many participants each was drawn"),
        )
        if key in entry
    )
    scores = "\n".join(f"| {key} | {value:g} |" for key, value in sorted(entry["scores"].items()))
    return (
        f"# {name}\n\n{entry['capability']}.\n\n"
        f"- File: `{entry['file']}`, {entry['bytes']} bytes, sha256 `{entry['sha256']}`\n"
        f"- Grid: {entry['grid']}\n- Intensity: percentiles {entry['intensity']['percentiles']} inside the "
        f"{entry['intensity']['inside']} become 0 and 1, clipped\n"
        f"{_threshold_line(entry)}- Network: {entry['network']}\n{extra}"
        f"- Trained {entry['steps']} steps in {entry['training_seconds'] / 60:.0f} minutes "
        f"on {entry['data']} (licence of the maps: {entry['data_licence']}), seed {entry['seed']}, "
        f"{entry['date']}\n"
        f"- Command: `{entry['command']}`\n- Licence: {entry['licence']}\n\n"
        f"## Measured\n\n`val_*`: {_MEASURED.get(name, _MEASURED[''])} {tested}.\n\n"
        f"| figure | value |\n|---|---|\n{scores}\n\n"
        f"## Limits\n\n{limits} Not a medical device.\n"
    )


def _threshold_line(entry: dict[str, Any]) -> str:
    return f"- Thresholds of the probability: {entry['threshold']}\n" if "threshold" in entry else ""
