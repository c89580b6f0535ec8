"""Every error that a user of HyperPrep can cause, in one small tree.

Each message says what was found, where, and what to do next. ``exit_code`` is what the command line
ends with when the error stops a whole run (BSD ``sysexits`` numbers where one fits).
"""

from __future__ import annotations


class HyperPrepError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code: int = 1


class UsageError(HyperPrepError):
    """The command line, the configuration file or an argument asks for something impossible."""

    exit_code = 2


class NoInputError(HyperPrepError):
    """The input data set, participant or scan is not there."""

    exit_code = 66


class ScanError(HyperPrepError):
    """An image exists but cannot be used (truncated, constant, wrong dimensions, not finite)."""

    exit_code = 65


class AlignmentError(HyperPrepError):
    """Two images could not be brought into affine alignment."""

    exit_code = 65


class OutputError(HyperPrepError):
    """The output or working directory cannot be written."""

    exit_code = 73


class WeightsError(HyperPrepError):
    """Network weights are missing, damaged or do not fit the network."""

    exit_code = 69


class TemplateError(HyperPrepError):
    """The template asked for is unknown or not available without a download."""

    exit_code = 69


class DeviceError(HyperPrepError):
    """The computing device asked for is not present."""

    exit_code = 69
