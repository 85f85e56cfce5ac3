"""Saves the checkpoint: at most once a second, and only while this leg owns the run's progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_batchkit.engine.checkpoint import Checkpoint, CheckpointStore, decode, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, SupersededError, TransientError

if TYPE_CHECKING:
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.writing import Retrying

SAVE_EVERY_SECONDS = 1.0


class ChangedMeanwhileError(TransientError):
    """Another leg saved the checkpoint between this leg's look at it and its claim: look again."""


class CheckpointKeeper:
    """Reads, claims and saves one run's checkpoint in a store.

    :param store: where it is kept.
    :param key: under which name.
    :param clock: where the time comes from.
    :param retrying: wraps every call to the store; when it gives up, the leg ends rather than run ahead.
    :param save_each: True: save at every window, not at most once a second (a sink that is not idempotent).
    :param saved: told of every save.
    """

    def __init__(
        self,
        store: CheckpointStore,
        key: str,
        *,
        clock: Clock,
        retrying: Retrying,
        save_each: bool = False,
        saved: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._retrying = retrying
        self._save_each = save_each
        self._saved = saved
        self._token = ""
        self._loaded: str | None = None
        self._saved_at = float("-inf")

    def load(self, *, ignore_damage: bool = False) -> Checkpoint | None:
        """Return the stored checkpoint, None when there is none.

        :param ignore_damage: the run begins anew anyway: treat what cannot be read as absent.
        :raises CannotResumeError: it is damaged or from a newer version.
        """
        stored = self._loaded = self._retrying("load of the checkpoint", lambda: self._store.load(self._key))
        if stored is None:
            return None
        try:
            checkpoint = decode(stored)
        except CannotResumeError as error:
            if ignore_damage:
                return None
            raise CannotResumeError(f"{self._name}: {error}") from error
        return checkpoint

    def claim(self, checkpoint: Checkpoint, *, confirm: Callable[[], None]) -> None:
        """Make this leg, named by ``checkpoint.token``, the owner of the run's progress.

        :param confirm: called when the checkpoint is no longer what was loaded; raises when a newer leg owns
            the target.
        :raises ChangedMeanwhileError: it was saved since, by a leg that this one has superseded.
        """
        if self._look() != self._loaded:
            confirm()
            raise ChangedMeanwhileError(f"{self._name} was saved by another leg while this one began")
        self._token = checkpoint.token
        self._write(checkpoint)

    def save_if_due(self, checkpoint: Checkpoint, *, before: Callable[[], None]) -> bool:
        """Save when a second has passed since the last save (or always, where the sink asks for it).

        :param before: called first: renews the target's lease, and raises when it is lost.
        """
        if not self._save_each and self._clock.monotonic() - self._saved_at < SAVE_EVERY_SECONDS:
            return False
        self.renew(before)
        self.save(checkpoint)
        return True

    def renew(self, lease: Callable[[], None]) -> None:
        """Renew the target's lease, as patiently as the checkpoint is saved."""
        self._retrying("renewal of the target's lease", lease)

    def delete(self) -> None:
        """Forget the run."""
        self._still_mine()
        self._retrying("removal of the checkpoint", lambda: self._store.delete(self._key))

    def save(self, checkpoint: Checkpoint) -> None:
        """Save now.

        :raises SupersededError: a newer leg has claimed the checkpoint.
        """
        self._still_mine()
        self._write(checkpoint)

    @property
    def _name(self) -> str:
        return f"the checkpoint {self._key!r} in {self._store.description}"

    def _still_mine(self) -> None:
        # There is no compare-and-set in the task state store or in Variables: read before each write. A leg
        # that sleeps between the two is stopped by the owner record at the target, which has one.
        stored = self._look()
        if stored is None:
            raise SupersededError(
                f"{self._name} was removed while the run went on; it stops here, the next leg begins anew"
            )
        try:
            found = decode(stored).token
        except CannotResumeError as error:
            raise CannotResumeError(f"{self._name} was changed while the run went on: {error}") from error
        if found != self._token:
            raise SupersededError(f"leg {found} took over from this leg ({self._token}); it stops here")

    def _look(self) -> str | None:
        return self._retrying("look at the checkpoint", lambda: self._store.load(self._key))

    def _write(self, checkpoint: Checkpoint) -> None:
        checkpoint.saved_at = self._clock.time()
        text = encode(checkpoint)
        self._retrying("save of the checkpoint", lambda: self._store.save(self._key, text))
        self._saved_at = self._clock.monotonic()
        self._saved(checkpoint)
