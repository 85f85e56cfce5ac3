"""Where ``batchkit checkpoints`` looks: the default folder, one file, or a target."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from airflow_batchkit.cli.checkpoint_files import read_file, saved_in
from airflow_batchkit.engine.checkpoint import Checkpoint, decode
from airflow_batchkit.engine.exceptions import CannotResumeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.stores.target import TargetStore


class Place(Protocol):
    """Some checkpoints, by name."""

    @property
    def description(self) -> str:
        """Where they lie, for messages."""
        ...

    @abstractmethod
    def names(self) -> list[str]:
        """Return what is saved there, sorted."""

    @abstractmethod
    def read(self, name: str) -> Checkpoint:
        """Read a checkpoint.

        :raises CannotResumeError: it is damaged, or none at all.
        """

    @abstractmethod
    def saved_at(self, name: str) -> float:
        """Return when a damaged one was saved, in seconds since the epoch; 0 where nobody knows."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class FolderPlace(Place):
    """Files of a folder.

    :param folder: it need not be there.
    :param only: the one file that is meant; None: all of them.
    """

    folder: Path
    only: str | None = None

    @property
    @override
    def description(self) -> str:
        return str(self.folder if self.only is None else self.folder / self.only)

    @override
    def names(self) -> list[str]:
        if self.only is None:
            return saved_in(self.folder)
        if not (self.folder / self.only).is_file():
            raise UsageError(f"there is no checkpoint file {self.description!r}")
        return [self.only]

    @override
    def read(self, name: str) -> Checkpoint:
        return read_file(self.folder / name)

    @override
    def saved_at(self, name: str) -> float:
        return (self.folder / name).stat().st_mtime

    @override
    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class TargetPlace(Place):
    """What lies beside an output.

    :param store: opened; whoever made it closes it.
    """

    store: TargetStore

    @property
    @override
    def description(self) -> str:
        return self.store.description

    @override
    def names(self) -> list[str]:
        return self.store.names()

    @override
    def read(self, name: str) -> Checkpoint:
        stored = self.store.load(name)
        if stored is None:
            raise CannotResumeError(f"the checkpoint {name!r} in {self.description} was just removed")
        return decode(stored)

    @override
    def saved_at(self, name: str) -> float:
        return 0.0

    @override
    def remove(self, name: str) -> None:
        self.store.delete(name)


def target_place(url: str) -> Iterator[Place]:
    """Give the checkpoints beside the output at a URL, and close the client afterwards.

    :raises UsageError: no checkpoint can lie there.
    """
    from airflow_batchkit.cli.connections import EnvironmentConnections
    from airflow_batchkit.cli.progress import LOG
    from airflow_batchkit.cli.systems import sink_at
    from airflow_batchkit.cli.urls import parse
    from airflow_batchkit.connectors.iterable import IterableSource
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.stores.target import target_store

    job = Job(
        name="batchkit checkpoints",
        source=IterableSource(records=tuple),
        sink=sink_at(parse(url), compression=None),
    )
    with closing(target_store(job, EnvironmentConnections(), LOG)) as store:
        yield TargetPlace(store=store)
