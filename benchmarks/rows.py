"""Results in a JSON lines file: what is there already is not measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows:
    r"""Rows of a JSON lines file; a line cut short by a kill does not count.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
    >>> _ = path.write_text('{"pair": "a", "dice": 0.5}\n{"pair": "b", "di')
    >>> rows = Rows(path)
    >>> rows.add({"pair": "b", "dice": 0.7})
    {'pair': 'b', 'dice': 0.7}
    >>> Rows(path).has(pair="b"), len(Rows(path).known)
    (True, 2)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: list[Row] = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                self.known.append(json.loads(line))
            except ValueError:
                continue

    def has(self, **key: Any) -> bool:
        """Whether a row with these values is there."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.known)

    def add(self, row: Row) -> None:
        """Append one row, on a line of its own."""
        row = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
        self.known.append(row)
        before = self.path.read_text() if self.path.exists() else ""
        cut = bool(before) and not before.endswith("\n")
        with self.path.open("a") as stream:
            stream.write("\n" * cut + json.dumps(row) + "\n")
        print(row, flush=True)
