"""Shows ``fmtda benchmark`` on the terminal: its plan as a table, and its cells as a bar or as lines."""

from contextlib import closing

from rich.console import Console
from rich.table import Table

from fmtda.benchmarking.sitting import BenchmarkPlan, carry_out
from fmtda.face.console import plain
from fmtda.face.interruption import interruptible
from fmtda.face.progress import CellBar, CellLines, shown_duration


def carry_out_benchmark(planned: BenchmarkPlan, console: Console) -> bool:
    """Run the cells that are not done, and show how far they are.

    Returns
    -------
    bool
        Whether all cells that were asked for are done.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after the cell's process was ended.
    """
    cells, done = len(planned.asked), len(planned.asked) - len(planned.waiting)
    progress = (CellBar if console.is_terminal else CellLines)(console, cells, done)
    with closing(progress), interruptible():
        return carry_out(planned, progress)


def print_plan(planned: BenchmarkPlan, console: Console) -> None:
    """Print what `--dry-run` shows: every cell, whether it is done, and an estimate."""
    table = Table("cell", "method", "state")
    for cell in planned.asked:
        state = "done" if cell.done else "to be continued" if cell.resumable else "to be run"
        table.add_row(plain(cell.name), plain(cell.method.description), state)
    console.print(table)
    left = planned.seconds_left(planned.waiting)
    estimate = "no estimate before a cell is done" if left is None else f"about {shown_duration(left)}"
    console.print(f"{len(planned.waiting)} of {len(planned.asked)} cells to run; {estimate}", highlight=False)
