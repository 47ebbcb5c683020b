"""Tables at a terminal."""

from collections.abc import Sequence


def print_rows(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    """Prints a table to standard output, as wide as the terminal; the first column is to the left."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.encode(errors="replace").decode()) for cell in row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width
        console.width = max(console.width, 200)
    console.print(table)
