"""The progress bar of a batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextmanager
def progress_bar(description: str, *, n_done: int, n_total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances the bar by one unit and takes the number of failures so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _CountsColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(description, completed=n_done, total=n_total, n_skipped=n_done, n_failed=0)

        def advance(n_failed: int) -> None:
            progress.update(bar, advance=1, n_failed=n_failed)

        yield advance


class _CountsColumn(ProgressColumn):
    """Units per second, and how many were skipped or failed."""

    def render(self, task: Task) -> Text:
        rate = [f"{task.speed:.0f}/s"] if task.speed else []
        skipped = [f"{task.fields['n_skipped']} skipped"] if task.fields["n_skipped"] else []
        return Text(", ".join([*rate, *skipped, f"{task.fields['n_failed']} failed"]))
