"""Small tables as text for a terminal and as Markdown."""

from collections.abc import Sequence


def plain(header: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    """Aligned columns: the first ``names`` to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(_fit(cell, width, at < names) for at, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )


def _fit(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    """A Markdown table; the first ``names`` columns to the left."""
    rule = ["---" if column < names else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [header, rule, *rows])
