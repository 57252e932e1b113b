"""What the commands of notifications say, to a person or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from rich.markup import escape

from flowlake.alerts.delivery import Attempt
from flowlake.alerts.model import Message
from flowlake.alerts.outbox import Put
from flowlake.alerts.templates import subject, text
from flowlake.alerts.triggers import Trigger
from flowlake.pipeline.notifying import NO_CHANNEL, Told
from flowlake.report import terminal


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table in which brackets are brackets: subjects have them, and names of files may."""
    return terminal.table(title, columns, [[escape(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])


def heard_by(advance: terminal.Advance) -> Callable[[Attempt], None]:
    """Progress by attempt; how many will follow is not known."""
    made = 0

    def heard(attempt: Attempt) -> None:
        nonlocal made
        made += 1
        advance(made, made, f"{attempt.channel} {attempt.address}: {attempt.state}")

    return heard


def print_triggers(found: Sequence[tuple[Trigger, date | None, tuple[str, ...]]], as_json: bool) -> int:
    keys = ("trigger", "tier", "cooldown_sessions", "data_up_to", "watches", "reads")
    rows: list[tuple[Any, ...]] = [
        (
            trigger.name,
            trigger.tier,
            trigger.cooldown_sessions,
            str(day) if day else f"no {', '.join(absent)}" if absent else "no session with all of it",
            trigger.watches,
            ", ".join(need.dataset for need in trigger.needs),
        )
        for trigger, day, absent in found
    ]
    if as_json:
        terminal.print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        terminal.console().print(
            _table("triggers", ["trigger", "tier", "cooldown, sessions", "data up to", "watches", "reads"], rows)
        )
    return 0


def told_json(told: Told) -> dict[str, Any]:
    return {
        "exit_code": told.exit_code,
        "channels": told.channels,
        "passed_over": [str(session) for session in told.passed_over],
        "triggers": [
            {
                "trigger": one.trigger.name,
                "session": str(one.session),
                "state": one.state,
                "missing": one.missing,
                "remarks": one.remarks,
            }
            for one in told.evaluated
        ],
        "notifications": [put.notification.to_json() | {"state": put.state, "why": put.why} for put in told.puts],
        "deliveries": [attempt_json(attempt) for attempt in told.attempts],
        "waiting": told.waiting,
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "channel": attempt.channel,
        "address": attempt.address,
        "id": attempt.message.id,
        "what": subject(attempt.message),
        "state": attempt.state,
        "detail": attempt.detail,
    }


def print_told(told: Told, as_json: bool, dry_run: bool = False) -> int:
    """Triggers, notifications and deliveries; the exit code."""
    if as_json:
        terminal.print_json(told_json(told))
        return told.exit_code
    out = terminal.console()
    for session in told.passed_over:
        out.print(f"{session} is older than --within: nothing of it is told")
    if told.evaluated:
        rows = [
            (
                one.session,
                one.trigger.name,
                len(one.notifications) if one.state == "found" else one.state,
                f"missing: {', '.join(one.missing)}" if one.missing else "; ".join(one.remarks),
            )
            for one in told.evaluated
        ]
        out.print(_table("triggers", ["session", "trigger", "found", "remarks"], rows))
    if told.puts:
        out.print(
            _table("notifications", ["session", "tier", "trigger", "subject", "state", "why"], [_put_row(p) for p in told.puts])
        )
    if dry_run:
        for put in told.puts:
            if put.state == "queued" or put.why == NO_CHANNEL:
                out.print(text(_preview(put)), markup=False)
        out.print("dry run: nothing was put into the outbox, nothing was sent")
        return told.exit_code
    if told.evaluated and not told.channels:
        out.print(f"{NO_CHANNEL}: nothing was put into the outbox, nothing was sent")
    print_attempts(told.attempts)
    if told.waiting:
        out.print(f"{told.waiting} wait for another attempt: `flowlake alerts flush` makes it, `flowlake alerts status` lists them")
    return told.exit_code


def _put_row(put: Put) -> tuple[str, ...]:
    one = put.notification
    return (str(one.session), one.tier, one.trigger, one.subject, put.state, put.why)


def _preview(put: Put) -> Message:
    one = put.notification
    return Message(one.identity, "notification", one.tier, datetime.now(UTC), (one,))


def print_attempts(attempts: Sequence[Attempt]) -> int:
    """A row for each attempt; 1 where one was not accepted, else 0."""
    if attempts:
        rows = [(a.channel, a.address, subject(a.message), a.state, a.detail) for a in attempts]
        terminal.console().print(_table("deliveries", ["channel", "address", "what", "state", "detail"], rows))
    return 1 if any(attempt.state != "accepted" for attempt in attempts) else 0


def print_queue(queue: dict[str, Any], as_json: bool) -> int:
    if as_json:
        terminal.print_json(queue)
        return 0
    out = terminal.console()
    counts = [(c["channel"], c["address"], c["state"], c["messages"]) for c in queue["counts"]]
    out.print(_table(f"outbox {queue['outbox']}", ["channel", "address", "state", "messages"], counts))
    if queue["open"]:
        out.print(
            _table(
                "not delivered",
                ["channel", "address", "state", "what", "since", "attempts", "next", "detail"],
                [_open_row(o) for o in queue["open"]],
            )
        )
    if queue["suppressed"]:
        rows = [(s["session"], s["tier"], s["trigger"], s["subject"], s["suppressed"]) for s in queue["suppressed"]]
        out.print(_table("newest that were suppressed", ["session", "tier", "trigger", "subject", "why"], rows))
    if any(one["state"] in ("refused", "given up") for one in queue["open"]):
        out.print("once the cause is gone: flowlake alerts flush --retry")
    return 0


def _open_row(one: dict[str, Any]) -> tuple[Any, ...]:
    what = one["titles"][0] if one["kind"] == "notification" else f"{len(one['titles'])} notifications"
    due = "now, by a process" if one["under_way"] else _utc(one["next_attempt_unix_s"]) if one["state"] == "waiting" else ""
    doubt = "; an attempt was not answered" if one["unanswered"] else ""
    return (
        one["channel"],
        one["address"],
        one["state"],
        what,
        _utc(one["created_unix_s"]),
        one["attempts"],
        due,
        one["detail"] + doubt,
    )


def _utc(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S}"
