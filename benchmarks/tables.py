"""Tables as Markdown and as csv files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["markdown", "table_line", "write_csv"]


def table_line(cells: Sequence[str]) -> str:
    """Make one line of a table."""
    return "| " + " | ".join(cells) + " |"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Write a table, its header first, that lines up as plain text too."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in cells]
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of equal keys, whole or not at all; an empty cell stands for None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
