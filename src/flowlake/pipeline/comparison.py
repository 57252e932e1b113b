"""One publication of a run beside what was built again: hashes, inputs, versions, and the difference in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flowlake.lake.partitions import InputRecord, Lineage

IDENTICAL, DIFFERS, UNTRIED = "identical", "differs", "not reproducible"
SOURCE = "bucket:"


@dataclass(frozen=True)
class InputDifference:
    """An input of which the run had recorded another hash, or that only one of the two had. Empty: not read."""

    dataset: str
    first: str
    last: str
    then: str
    now: str


@dataclass(frozen=True)
class Compared:
    """One publication of the run beside what was built now. Hashes are empty where there is nothing to hash.

    `inputs`: recorded inputs that differ; `versions`: versions of step, schema or checks that differ; `why` says in words what a
    person needs beyond the hashes.
    """

    step: str
    dataset: str
    session: date
    outcome: str
    expected: str
    found: str
    expected_file: str
    found_file: str
    why: str = ""
    inputs: tuple[InputDifference, ...] = ()
    versions: tuple[str, ...] = ()


def what_changed(inputs: tuple[InputDifference, ...]) -> str:
    """In words, where the recorded source of an ingest step is not what the bucket has."""
    parts = []
    for d in inputs:
        name = d.dataset.removeprefix(SOURCE)
        if not d.now:
            parts.append(f"{name} is gone from the bucket")
        elif not d.then:
            parts.append(f"{name} is new in the bucket")
        else:
            parts.append(f"{name} has other content now: {d.now[:16]} instead of {d.then[:16]}")
    return "the source object changed: " + "; ".join(parts) if parts else ""


def inputs_that_differ(then: Lineage | None, now: Lineage | None) -> tuple[InputDifference, ...]:
    """Inputs whose recorded hashes differ; none where either side is not known."""
    if then is None or now is None:
        return ()
    before, after = ({record.dataset: record for record in lineage.inputs} for lineage in (then, now))
    return tuple(
        _difference(before.get(name), after.get(name)) for name in sorted(before | after) if before.get(name) != after.get(name)
    )


def _difference(then: InputRecord | None, now: InputRecord | None) -> InputDifference:
    known = then or now
    if known is None:
        raise ValueError("neither side has the input")
    return InputDifference(known.dataset, known.first, known.last, then.hash if then else "", now.hash if now else "")


def versions_that_differ(then: Lineage | None, now: Lineage | None) -> tuple[str, ...]:
    """What was changed in the code that decides the output, in words; nothing where either side is not known."""
    if then is None or now is None:
        return ()
    found = []
    if then.step_version != now.step_version:
        found.append(f"version {then.step_version} of the step then, {now.step_version} now")
    if then.schema_hash != now.schema_hash:
        found.append("the columns are declared otherwise now")
    if then.suite_hash != now.suite_hash:
        found.append("the checks are declared otherwise now")
    return tuple(found)
