"""Reading and writing text, JSON and CSV files, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"  # what JSON can hold


def write_text(path: Path, text: str) -> None:
    """Writes `text` to the file at `path`, whole or not at all. Makes the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name with no content
        os.chmod(temporary, 0o644)  # mkstemp's own mode keeps others from reading it
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: object) -> None:
    """Writes `value` as strict JSON: a number that is not finite becomes null."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if the file is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def plain(value: object) -> Json:
    """`value` in JSON's own types: NumPy numbers and arrays, tuples and paths converted, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def as_json(value: object) -> str:
    """`value` as one line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False)


def as_cell(value: object) -> str:
    """A setting as a cell of a table: a word as it is, any other value as JSON. `from_cell` gives the value back."""
    if isinstance(value, str) and value != "":
        try:
            json.loads(value)
        except ValueError:
            return value
    return as_json(value)


def from_cell(cell: str) -> Json:
    """The setting that `as_cell` wrote."""
    try:
        return cast(Json, json.loads(cell))
    except ValueError:
        return cell


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if the file is missing. A last line that a crash cut off is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole, newline=""), restval=""))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]], header: bool = True) -> str:
    """`rows` as CSV; a missing cell is empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(columns), restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes `rows` as a CSV file with a header, whole or not at all."""
    write_text(path, csv_text(columns, rows))


def blank(value: object) -> object:
    """A cell of trials.csv: `value`, or "" for None, NaN and infinity."""
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
