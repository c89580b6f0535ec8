"""What every interface of this package shares: traits of the networks, output names, metrics files."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

#: Largest number that fits the type in which derivatives store segmentations.
_LARGEST_LABEL = np.iinfo(np.int16).max


class _ThreadedInputSpec(BaseInterfaceInputSpec):
    num_threads = traits.Range(
        low=1, value=1, usedefault=True, nohash=True, desc="threads used; does not change the result"
    )


class _ModelInputSpec(_ThreadedInputSpec):
    use_gpu = traits.Bool(
        False, usedefault=True, nohash=True, desc="compute on a GPU; lets the scheduler count the node as one"
    )
    device = traits.Str(nohash=True, desc="cpu, cuda or cuda:N; by default cuda with use_gpu, else cpu")
    weights = File(exists=True, desc="weights file; by default the one of this name that is found first")
    weights_dir = Directory(
        exists=True, nohash=True, desc="folder searched for weights before the environment and the package"
    )
    weights_sha256 = traits.Str(
        desc="digest of the weights to use; part of the node's hash, so that other weights make it run again"
    )


class _MetricsOutputSpec(TraitedSpec):
    out_metrics = File(
        exists=True, desc="JSON file with the figures of this step and its duration in seconds"
    )


class TimedInterface(SimpleInterface):
    """An interface whose :meth:`_compute` returns figures; they are written as JSON with the duration."""

    def _run_interface(self, runtime: Any) -> Any:
        start = time.perf_counter()
        folder = Path(runtime.cwd)
        with itk_threads(self.inputs.num_threads):
            metrics = self._compute(folder)
        metrics["seconds"] = round(time.perf_counter() - start, 3)
        self._results["out_metrics"] = write_json(metrics, folder / "metrics.json")
        return runtime

    def _compute(self, folder: Path) -> dict[str, Any]:
        """Do the work; write files below ``folder``, fill ``_results`` and return the figures."""
        raise NotImplementedError


class ModelInterface(TimedInterface):
    """Base of the interfaces that run a network.

    Subclasses name their weights in ``_weights_name``; :meth:`_model_options` gives what every function of
    :mod:`hyperprep.models.predict` with a network takes.
    """

    input_spec = _ModelInputSpec
    output_spec = _MetricsOutputSpec
    _weights_name = ""
    _further_weights: tuple[str, ...] = ()

    def _run_interface(self, runtime: Any) -> Any:
        from hyperprep.models.predict.device import explained_memory

        with explained_memory(self._device(), type(self).__name__):
            return super()._run_interface(runtime)

    def _model_options(self) -> dict[str, Any]:
        """Keyword arguments ``weights``, ``weights_dir``, ``device`` and ``num_threads``."""
        return {
            "weights": defined(self.inputs.weights),
            "weights_dir": defined(self.inputs.weights_dir),
            "device": self._device(),
            "num_threads": self.inputs.num_threads,
        }

    def _device(self) -> str:
        return defined(self.inputs.device) or ("cuda" if self.inputs.use_gpu else "cpu")

    def _weights_digest(self, further: str = "") -> str:
        """Digest of the weights in use, checked against ``weights_sha256`` where that is set.

        ``further`` names a second network that the interface runs, with its own ``<name>_weights_sha256``.

        Raises
        ------
        WeightsError
            If the weights are missing, or their digest is another one.
        """
        from hyperprep.exceptions import WeightsError
        from hyperprep.models.weights import find_weights

        entry = find_weights(
            further or self._weights_name,
            path=None if further else defined(self.inputs.weights),
            weights_dir=defined(self.inputs.weights_dir),
        )
        expected = defined(
            getattr(self.inputs, f"{further}_weights_sha256") if further else self.inputs.weights_sha256
        )
        if expected and entry.sha256 != expected:
            raise WeightsError(
                f"{entry.path} has the digest {entry.sha256}, but this run was planned with {expected}: "
                "the weights changed in between. Start the run again."
            )
        return str(entry.sha256)


@contextmanager
def itk_threads(count: int) -> Iterator[None]:
    """Let SimpleITK use this many threads inside the block.

    Examples
    --------
    >>> import SimpleITK as sitk
    >>> with itk_threads(1):
    ...     sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    1
    """
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def defined(value: Any) -> Any:
    """Return the value of a trait, or None where it is not set.

    Examples
    --------
    >>> from nipype.interfaces.base import Undefined
    >>> defined(Undefined) is None, defined(3)
    (True, 3)
    """
    return value if isdefined(value) else None


def read_like(read: Callable[..., Any], path: Any, img: Any) -> Any:
    """Read a mask or segmentation on an image's grid; None where the trait was not given."""
    given = defined(path)
    return read(given, like=img) if given else None


def read_affine(path: str | None) -> np.ndarray:
    """Read a linear ITK transform as a point map.

    Parameters
    ----------
    path
        ITK transform file; None gives the identity.

    Returns
    -------
    numpy.ndarray
        ``(4, 4)`` from the reference's space to the input's, RAS mm.

    Raises
    ------
    ScanError
        If the transform is not linear.
    """
    from hyperprep.exceptions import ScanError
    from hyperprep.models.spatial.itk import affine_from_itk
    from hyperprep.models.spatial.transforms import read_transform

    if path is None:
        return np.eye(4)
    transform = read_transform(path)
    if not transform.IsLinear():
        raise ScanError(f"{path} is no linear transform: give the one of the affine alignment.")
    return affine_from_itk(transform)


def write_json(values: Mapping[Any, Any], path: Path) -> str:
    """Write figures as JSON; numbers that are not finite become null.

    Parameters
    ----------
    values
        Plain values, numpy numbers and arrays among them.
    path
        The file.

    Returns
    -------
    str
        The path.

    Examples
    --------
    >>> import tempfile
    >>> name = write_json({"dice": np.float32("nan"), "n": np.int64(3)}, Path(tempfile.mkdtemp()) / "a.json")
    >>> json.loads(Path(name).read_text())
    {'dice': None, 'n': 3}
    """
    path.write_text(json.dumps(_plain(values), indent=2, sort_keys=True, allow_nan=False) + "\n")
    return str(path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] | None = None) -> str:
    r"""Write rows as a TSV file with a header line; missing values are ``n/a``.

    The columns are those of the rows unless they are given, which a table without a row needs.

    Examples
    --------
    >>> import tempfile
    >>> name = write_table([{"index": 1, "name": "GM"}], Path(tempfile.mkdtemp()) / "a.tsv")
    >>> Path(name).read_text()
    'index\tname\n1\tGM\n'
    >>> Path(write_table([], Path(name), ("index", "name"))).read_text()
    'index\tname\n'
    """
    import pandas as pd

    pd.DataFrame(list(rows), columns=None if columns is None else list(columns)).to_csv(
        path, sep="\t", index=False, na_rep="n/a"
    )
    return str(path)


def read_table(path: str | Path) -> Any:
    """Read a TSV file that :func:`write_table` wrote: only ``n/a`` is missing, a region may be called NA.

    Examples
    --------
    >>> import tempfile
    >>> name = write_table([{"name": "NA", "value": None}], Path(tempfile.mkdtemp()) / "a.tsv")
    >>> read_table(name)["name"].tolist(), read_table(name)["value"].isna().tolist()
    (['NA'], [True])
    """
    import pandas as pd

    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a"])


def save_image(img: nb.Nifti1Image, path: Path, *, like: nb.Nifti1Image | None = None) -> str:
    """Write an image in the form of the derivatives.

    Label numbers in wider types become int16, both orientation forms are set and their codes are those of
    ``like`` (scanner space without one).

    Parameters
    ----------
    img
        ``(X, Y, Z)`` image.
    path
        ``.nii.gz`` file.
    like
        Image in the same space.

    Returns
    -------
    str
        The path.
    """
    from hyperprep.models.spatial.images import write_image

    data = np.asanyarray(img.dataobj)
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif data.dtype.kind in "iu" and data.dtype.itemsize > 2 and data.max(initial=0) <= _LARGEST_LABEL:
        data = data.astype(np.int16)
    code = int(like.header["sform_code"] or like.header["qform_code"]) if like is not None else 0
    made = nb.Nifti1Image(data, img.affine)
    made.set_sform(img.affine, code or 1)
    made.set_qform(img.affine, code or 1, strip_shears=True)
    made.header.set_xyzt_units("mm")
    return str(write_image(made, path))
