"""The ``batchkit`` command itself: its subcommands, imported only when asked for, and how it ends."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from typing_extensions import override

from airflow_batchkit import __version__
from airflow_batchkit.cli.exits import FAILED, exit_code, one_line

_COMMANDS = {
    "copy": "airflow_batchkit.cli.copy:copy",
    "run": "airflow_batchkit.cli.run:run",
    "verify": "airflow_batchkit.cli.verify:verify",
    "checkpoints": "airflow_batchkit.cli.checkpoints:checkpoints",
    "watch": "airflow_batchkit.cli.watch:watch",
    "dead-letters": "airflow_batchkit.cli.dead_letters:dead_letters",
    "demo": "airflow_batchkit.cli.demo.command:demo",
}


class LazyGroup(click.Group):
    """Imports a subcommand when it runs or shows its help: ``batchkit --version`` loads nothing else."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "-V", "--version", message="batchkit %(version)s")
@click.pass_context
def batchkit(context: click.Context) -> None:
    """Copy records between systems in batches: throttled, idempotent, resumable after a kill.

    \b
    Examples:
      batchkit demo
      batchkit copy elasticsearch+http://localhost:9200/orders s3://lake/orders
      batchkit copy "sqlite:///data/shop.db?table=orders" file:///tmp/orders
      batchkit run dags/orders.py export_orders --logical-date 2026-11-22
      batchkit verify s3://lake/orders/ds=2026-03-01
      batchkit checkpoints list
      batchkit watch --airflow-url https://airflow.example --tag nightly --max-age 26h

    \b
    Exit codes: 0 done · 1 failed · 2 wrong usage · 3 error budget exceeded · 4 stopped and can be resumed
                1 watch: something is wrong with a job
                5 verify: damaged · 6 verify: differs from the live index
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with an exit code of :mod:`airflow_batchkit.cli.exits`.

    :param arguments: what follows ``batchkit``. Default: the process's own.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = batchkit.main(arguments, prog_name="batchkit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads us has gone (`batchkit … | head`); the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:  # noqa: BLE001  # the last place to turn an error into one line and an exit code
        code = exit_code(error)
        verbose = "-v" in arguments or "--verbose" in arguments
        if verbose:
            traceback.print_exception(error)
        click.echo(one_line(error, verbose=verbose), err=True)
    sys.exit(code if isinstance(code, int) else 0)
