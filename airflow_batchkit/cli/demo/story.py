"""What a person sees of the demo: one line a step, a bar where something moves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table

if TYPE_CHECKING:
    from airflow_batchkit.cli.demo.proof import Proof


class Story:
    """Tells the demo's steps on standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        """Open the story."""
        self._console.print()
        self._console.rule(f"[bold]{text}", style="cyan")
        self._console.print()

    def step(self, text: str, *, mark: str = "[green]✓[/]") -> None:
        """Tell one thing that is done."""
        self._console.print(f" {mark} {text}  [dim]{time.monotonic() - self._began:.0f} s[/]")

    def blow(self, text: str) -> None:
        """Tell what was done to it."""
        self.step(f"[bold red]{text}[/]", mark="[red]✗[/]")

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Say what is being done, for the time of a ``with`` block."""
        with self._console.status(f"{text} …", spinner="dots"):
            yield

    @contextmanager
    def moving(self, total: int) -> Iterator[Bar]:
        """Show a bar for the time of a ``with`` block.

        :param total: records that make the bar full.
        """
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(min_width=10, no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[line]}", markup=False),
        )
        shown = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            yield Bar(progress, total)

    def findings(self, proof: Proof, report: Mapping[str, Any]) -> None:
        """Show what was published, and what was given up."""
        self._console.print()
        parts = proof.manifest["parts"]
        rows = Table(box=None, show_header=False, padding=(0, 2))
        rows.add_column(style="bold")
        rows.add_column(overflow="fold")
        rows.add_row(
            "manifest.json", f"{len(parts)} parts, {sum(part['records'] for part in parts):,} records"
        )
        rows.add_row("", f"{sum(part['bytes'] for part in parts):,} bytes, generation {report['generation']}")
        rows.add_row("dead letters", f"{len(proof.letters):,}, for example:")
        rows.add_row("", _letter(proof.example))
        rows.add_row("run", f"{report['legs']} legs in {report['active_seconds']:.1f} s of work")
        self._console.print(rows)
        self._console.print()

    def reconciled(self, *, made: int, exported: int, letters: int) -> None:
        """Show that nothing is lost and nothing is doubled."""
        self.step(f"[bold]{made:,} made = {exported:,} exported + {letters:,} dead-lettered[/]")
        self.step("every id exactly once, every checksum right, nothing left over")

    def objections(self, objections: list[str]) -> None:
        """Show what did not hold."""
        for objection in objections:
            self.blow(objection)

    def end(self, text: str) -> None:
        """Close the story."""
        self._console.print()
        self._console.rule(f"[bold]{text}[/] in {time.monotonic() - self._began:.0f} s", style="cyan")


class Bar:
    """A bar that moves with the run's progress; nothing is shown where there is no terminal."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("waiting for a worker", total=total, line="")

    def show(self, what: str, progress: Mapping[str, Any]) -> None:
        """Show where the run stands.

        :param what: the try, and what it does.
        :param progress: the run's last progress, empty before the first.
        """
        line = ""
        if progress:
            line = "{read:,} orders · {records_per_second:,.0f}/s · {dead_lettered} dead-lettered".format(
                **progress
            )
        self._progress.update(self._task, description=what, completed=progress.get("read", 0), line=line)


def _letter(letter: Mapping[str, Any]) -> str:
    record = json.dumps(letter["record"], ensure_ascii=False)
    return f"[red]{letter['error_type']}: {letter['message']}[/]\n[dim]{record}[/]"
