"""The TOML file whose keys are the long options."""

from __future__ import annotations

import difflib
import tomllib
from argparse import Action, ArgumentParser
from pathlib import Path
from typing import Any

from hyperprep.exceptions import UsageError

#: Options that make no sense inside the file itself.
_NOT_IN_FILE = frozenset({"help", "version", "config-file"})


def arguments_from_toml(path: Path, parser: ArgumentParser) -> list[str]:
    """Turn a configuration file into the words of a command line.

    Parameters
    ----------
    path
        TOML file; its keys are long options of `parser`, with ``-`` or ``_``.
    parser
        Parser that has the options.

    Returns
    -------
    list of str
        Words that `parser` understands; values are not converted yet.

    Raises
    ------
    UsageError
        If the file is no TOML, or a key is unknown (near matches are named) or has a value of a
        kind that the option cannot take.
    """
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration file {path} is not valid TOML: {error}") from error

    options = _long_options(parser)
    words: list[str] = []
    unknown: list[str] = []
    seen: dict[str, str] = {}
    for key, value in content.items():
        action = options.get(_normal(key))
        if action is None:
            near = difflib.get_close_matches(_normal(key), sorted(options), n=3)
            unknown.append(f"{key!r}" + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""))
            continue
        if action.dest in seen:
            raise UsageError(
                f"{path}: {seen[action.dest]!r} and {key!r} are the same option; keep one of them"
            )
        seen[action.dest] = key
        words += _words(action, key, value, path)
    if unknown:
        raise UsageError(f"{path}: unknown option {', '.join(unknown)}; keys are the long options of --help")
    return words


def _normal(key: str) -> str:
    return key.replace("_", "-")


def _long_options(parser: ArgumentParser) -> dict[str, Action]:
    """Collect the parser's actions by the names a file may use."""
    return {
        _normal(option[2:]): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and _normal(option[2:]) not in _NOT_IN_FILE
    }


def _words(action: Action, key: str, value: Any, path: Path) -> list[str]:
    """Write one entry of the file as words of the command line."""
    option = action.option_strings[-1]
    if action.dest == "verbose":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{path}: {key!r} must be a whole number (how often -v is given), not {value!r}")
        return [option] * value
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{path}: {key!r} must be true or false, not {value!r}")
        return [option] if value else []
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and action.nargs is None:
        raise UsageError(f"{path}: {key!r} takes one value, not a list")
    if not values or any(isinstance(v, (bool, dict, list)) or v is None for v in values):
        raise UsageError(f"{path}: {key!r} must be text, a number or a list of these, not {value!r}")
    if action.nargs is None:
        return [f"{option}={values[0]}"]
    return [option, *map(str, values)]
