"""What training says on a terminal: lines as they are, and a bar of progress.

rich is loaded when something is trained: it takes long, and few who import graphc train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def say(console: Console, line: object) -> None:
    """Print a line: one line, however long, and as it is. Names may hold what rich takes for markup."""
    console.print(str(line), markup=False, highlight=False, soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """A bar for each task, on a terminal; elsewhere nothing."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal)
