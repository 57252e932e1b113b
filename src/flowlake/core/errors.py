"""Errors carry facts and the cure: what happened, where, and what to do about it."""

from __future__ import annotations


class FlowlakeError(Exception):
    """A condition that a user can understand and act on; the command line prints it without a traceback."""

    exit_code = 1

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}\n  cure: {self.cure}"


class UsageError(FlowlakeError):
    """The command, a setting or an argument is wrong."""

    exit_code = 2


class BadInputError(FlowlakeError):
    """A vendor file or a partition holds what cannot be right. It is quarantined, never guessed at.

    `place` names the file, partition or row; `rule` is a short stable name of the check that refused it.
    """

    def __init__(self, place: str, rule: str, what: str, cure: str) -> None:
        super().__init__(f"{place}: {what}", cure)
        self.args = (place, rule, what, cure)
        self.place = place
        self.rule = rule
        self.detail = what


class SourceUnavailableError(FlowlakeError):
    """The bucket throttles, denies or cannot be reached. Nothing is quarantined: the file may be good."""


class ObjectChangedError(SourceUnavailableError):
    """An object was replaced while it was being read."""


class StorageError(FlowlakeError):
    """The lake cannot be read or written (full disk, missing permission)."""


class LookAheadError(FlowlakeError):
    """A step asked for what was not known at its decision time, or for what it did not declare."""


class PushError(FlowlakeError):
    """Metrics could not be handed over."""


class BusyError(FlowlakeError):
    """Another run works on the same sessions, and the time to wait for it is over."""

    exit_code = 4


class ClusterError(FlowlakeError):
    """The Dask cluster was lost, or one of its workers cannot do what the others do."""
