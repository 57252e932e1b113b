"""The command line. Each subcommand is a thin reading of arguments; the work is done below."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flowlake import __version__
from flowlake.core import events
from flowlake.core.alert_settings import CHANNELS
from flowlake.core.errors import FlowlakeError, UsageError
from flowlake.core.settings import LOG_FORMATS, Settings, load_settings, without_secrets

if TYPE_CHECKING:
    from flowlake.pipeline.run import Request

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EPILOG = """exit codes: 0 all built or fresh, 1 failed, 2 wrong usage, 3 done but something was quarantined,
4 another run works on the same sessions

settings come from FLOWLAKE_* variables, over flowlake.toml in the current folder:
  FLOWLAKE_LAKE               folder or s3://bucket/prefix (default ./lake)
  FLOWLAKE_BUCKET_NAME, FLOWLAKE_BUCKET_ENDPOINT, FLOWLAKE_BUCKET_PREFIX
  FLOWLAKE_BUCKET_KEY_ID, FLOWLAKE_BUCKET_SECRET
  FLOWLAKE_DASK_SCHEDULER     tcp://host:8786, for --executor dask
  FLOWLAKE_LOG_FORMAT         json: one event per line on standard error, or in the file of --log

try first: flowlake demo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=[_log_handler(arguments)])
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        code: int = arguments.command(arguments)
    except FlowlakeError as error:
        _say("error", f"flowlake: {error}", what=error.what, cure=error.cure, exit_code=error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours must not reach the user as a traceback
        path = Path(tempfile.gettempdir()) / "flowlake-error.txt"
        path.write_text(traceback.format_exc(), encoding="utf-8")
        what, cure = f"an unexpected {type(error).__name__}: {error}", f"please report it with {path}"
        _say("error", f"flowlake: {what}\n  cure: {cure}", what=what, cure=cure, exit_code=1)
        return 1
    except KeyboardInterrupt:
        what, cure = "stopped; what was published stays", "run the same command again to go on"
        _say("error", f"\nflowlake: {what}. {cure.capitalize()}.", what=what, cure=cure, exit_code=1)
        return 1
    return code


def _say(event: str, words: str, **facts: object) -> None:
    """Words for a person on standard error, or an event where that belongs to the events."""
    if events.on_stderr():
        events.emit(event, logging.ERROR, **facts)
    else:
        sys.stderr.write(f"{words}\n")


def _log_handler(arguments: argparse.Namespace) -> logging.Handler:
    """Tracebacks go to a file that the operator can send along; a terminal shows facts and cures only."""
    target = getattr(arguments, "log", None)
    return logging.FileHandler(target) if target else logging.NullHandler()


def _listen(arguments: argparse.Namespace, settings: Settings) -> None:
    """Where the settings ask for it, write what happens as JSON lines: to the file of `--log`, else to standard error."""
    if settings.log_format == "json":
        target = getattr(arguments, "log", None)
        handler = logging.FileHandler(target) if target else logging.StreamHandler(sys.stderr)
        events.listen(handler, lambda text: without_secrets(text, settings))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="flowlake",
        description="A bucket of raw US options files becomes an audited Parquet lake and reasoned signals of unusual order flow.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"flowlake {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_status(commands)
    _add_runs(commands)
    _add_reproduce(commands)
    _add_sql(commands)
    _add_datasets(commands)
    _add_doctor(commands)
    _add_demo(commands)
    _add_airflow(commands)
    _add_backtest(commands)
    _add_report(commands)
    _add_models(commands)
    _add_alerts(commands)
    _add_market(commands)
    _add_verify(commands)
    _add_restore(commands)
    _add_prune(commands)
    _add_backup(commands)
    _add_recover(commands)
    _add_metrics(commands)
    _add_render(commands)
    return top


def _command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_: str,
    example: str,
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(command=run)
    made.add_argument("--lake", help="folder or s3://bucket/prefix, instead of FLOWLAKE_LAKE")
    return made


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write YYYY-MM-DD") from None


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: letters, digits, - and _ only")
    return text


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = load_settings()
    policy = getattr(arguments, "policy", None) or settings.condition_policy
    return replace(settings, lake=arguments.lake or settings.lake, condition_policy=policy)


def _recorded_settings(arguments: argparse.Namespace) -> Settings:
    """Settings of a command that leaves a record of itself and tells what happens."""
    settings = _settings(arguments)
    settings = replace(settings, log_format=getattr(arguments, "log_format", None) or settings.log_format)
    _listen(arguments, settings)
    return settings


def _seconds(text: str) -> float:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of seconds")
    return float(text)


def _add_wait(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--wait",
        type=_seconds,
        default=3600.0,
        metavar="SECONDS",
        help="how long to wait for another run on the same sessions (default 3600; 0 ends at once with exit code 4)",
    )


def _add_range(made: argparse.ArgumentParser) -> None:
    made.add_argument("--session", type=_day, metavar="D", help="one session")
    made.add_argument("--from", dest="first", type=_day, metavar="D", help="first session, inclusive")
    made.add_argument("--to", dest="last", type=_day, metavar="D", help="last session, inclusive")
    made.add_argument(
        "--last",
        dest="newest",
        type=_positive,
        metavar="N",
        help="the newest N sessions of the bucket whose decision time has passed",
    )
    made.add_argument("--step", nargs="+", default=[], metavar="NAME", help="only these steps or stages")
    made.add_argument("--retry", action="store_true", help="try again what quarantine holds")
    made.add_argument("--restate", action="store_true", help="replace windowed and fitted outputs whose inputs changed")
    made.add_argument(
        "--policy",
        metavar="NAME[@VERSION]",
        help="what sale conditions mean, instead of FLOWLAKE_CONDITION_POLICY; the dataset sale_conditions lists the policies",
    )


def _request(arguments: argparse.Namespace) -> Request:
    from flowlake.pipeline.plan import select
    from flowlake.pipeline.run import Request, newest_sessions

    given = [bool(arguments.session), bool(arguments.first or arguments.last), bool(arguments.newest)]
    if sum(given) > 1:
        raise UsageError("--session, --from/--to and --last exclude each other", "give one session, a range, or --last N")
    if arguments.newest:
        first, last = newest_sessions(_settings(arguments), arguments.newest, datetime.now(UTC))
        return Request(first, last, select(arguments.step), retry=arguments.retry, restate=arguments.restate)
    first = arguments.session or arguments.first
    last = arguments.session or arguments.last or first
    if first is None or last is None:
        raise UsageError("no session was given", "give --session D, --from D --to D, or --last N")
    return Request(first, last, select(arguments.step), retry=arguments.retry, restate=arguments.restate)


def _add_run(commands: Commands) -> None:
    made = _command(
        commands,
        "run",
        run_command,
        "Bring the lake up to date for a range of sessions: fetch, audit, publish, compute signals. Can be killed and run again.",
        "flowlake run --from 2024-01-02 --to 2024-03-28",
    )
    _add_range(made)
    made.add_argument("--executor", choices=["local", "dask"], help="default: dask where a scheduler is set, else local")
    made.add_argument(
        "--scheduler", default="", metavar="tcp://HOST:PORT", help="Dask scheduler, instead of FLOWLAKE_DASK_SCHEDULER"
    )
    made.add_argument("--workers", type=_positive, default=2, metavar="N", help="processes of a local Dask cluster (default 2)")
    _add_wait(made)
    docs = made.add_mutually_exclusive_group()
    docs.add_argument("--no-data-docs", action="store_true", help="do not write the HTML pages of the audits")
    docs.add_argument(
        "--data-docs", type=_name, metavar="NAME", help="write them to data-docs/runs/NAME, for runs beside one another"
    )
    made.add_argument("--log", metavar="FILE", help="append technical details of failures to FILE")
    made.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        help="json: one event per line in the file of --log, else on standard error; instead of FLOWLAKE_LOG_FORMAT",
    )
    made.add_argument("--json", action="store_true", help="print the report as JSON")


def run_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline import run as pipeline_run
    from flowlake.pipeline.reporting import RunProgress, print_report, report_json, write_data_docs
    from flowlake.report import terminal

    settings = _recorded_settings(arguments)
    scheduler = arguments.scheduler or settings.dask_scheduler
    executor = arguments.executor or ("dask" if scheduler else "local")
    request = replace(_request(arguments), executor=executor, scheduler=scheduler, workers=arguments.workers)
    request = replace(request, wait_seconds=arguments.wait)
    with terminal.progress("steps") as advance:
        shown = RunProgress(advance)
        report = pipeline_run.run(settings, request, shown.step, shown.fetched)
    docs = "" if arguments.no_data_docs else write_data_docs(settings, report, arguments.data_docs or "")
    if arguments.json:
        terminal.print_json(report_json(report, docs))
    else:
        print_report(report, docs)
    return report.exit_code


def _add_status(commands: Commands) -> None:
    made = _command(
        commands,
        "status",
        status_command,
        "What a run would do: fresh, due, held, restatable, blocked.",
        "flowlake status --from 2024-01-02 --to 2024-03-28",
    )
    _add_range(made)
    made.add_argument("--json", action="store_true", help="one object per step and session")


def status_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.reporting import print_status
    from flowlake.pipeline.run import status
    from flowlake.report import terminal

    found = status(_settings(arguments), _request(arguments))
    if arguments.json:
        terminal.print_json([vars(s) for s in found])
    else:
        print_status(found)
    return 0


def _add_runs(commands: Commands) -> None:
    made = _command(
        commands,
        "runs",
        runs_command,
        "What ran, newest first; or one run in full: its steps, what it published, and from which inputs.",
        "flowlake runs --last 5",
    )
    made.add_argument("run", nargs="?", metavar="RUN", help="first characters of a run's id: show that run in full")
    made.add_argument("--last", type=_positive, metavar="N", help="the newest N (default 20)")
    made.add_argument("--session", type=_day, metavar="D", help="only runs whose range has this session")
    made.add_argument("--parent", default="", metavar="ID", help="only runs that were started by ID, as in FLOWLAKE_PARENT_RUN")
    made.add_argument("--json", action="store_true")


def runs_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.store import open_store
    from flowlake.pipeline import trail
    from flowlake.pipeline.trail_report import print_detail, print_runs
    from flowlake.report import terminal

    if arguments.run and (arguments.last or arguments.session or arguments.parent):
        raise UsageError("one run needs no --last, --session or --parent", "give the first characters of its id alone")
    settings = _settings(arguments)
    store = open_store(settings.lake, settings.lake_access)
    found = trail.runs(store)
    if arguments.run:
        detail = trail.detail(store, trail.find_run(found, arguments.run))
        if arguments.json:
            terminal.print_json(detail.to_dict())
        else:
            print_detail(detail)
        return 0
    shown = trail.matching(found, arguments.last or 20, arguments.session, arguments.parent)
    if arguments.json:
        terminal.print_json(shown)
    else:
        print_runs(shown)
    return 0


def _add_reproduce(commands: Commands) -> None:
    made = _command(
        commands,
        "reproduce",
        reproduce_command,
        "Build again what a run published, from what it saw, in a scratch lake, and compare. The lake itself is not written. "
        "Exit code 0: all identical, 1: something differs, 3: something could not be tried.",
        "flowlake reproduce 20240305T0310 --session 2024-03-04",
    )
    made.add_argument("run", metavar="RUN", help="first characters of a run's id; `flowlake runs` lists them")
    made.add_argument("--session", type=_day, metavar="D", help="only this session")
    made.add_argument("--step", nargs="+", default=[], metavar="NAME", help="only these steps or stages")
    made.add_argument("--keep", metavar="FOLDER", help="keep the scratch lake in a new folder")
    made.add_argument("--json", action="store_true", help="every comparison with its hashes")


def reproduce_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.plan import select
    from flowlake.pipeline.reporting import RunProgress
    from flowlake.pipeline.reproduce import reproduce
    from flowlake.pipeline.trail_report import print_reproduction
    from flowlake.report import terminal

    keep = Path(arguments.keep) if arguments.keep else None
    with terminal.progress("steps") as advance:
        shown = RunProgress(advance)
        made = reproduce(
            _settings(arguments), arguments.run, arguments.session, select(arguments.step), keep, shown.step, shown.fetched
        )
    if arguments.json:
        terminal.print_json(made.to_dict())
    else:
        print_reproduction(made)
    return made.exit_code


def _add_sql(commands: Commands) -> None:
    made = _command(
        commands,
        "sql",
        sql_command,
        "Query the lake with DuckDB: one view per dataset.",
        'flowlake sql "select session, underlying, score from signals order by score desc limit 10" --as-of 2024-03-01',
    )
    made.add_argument("query", help="SQL")
    made.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table", help="default table")
    made.add_argument("--output", metavar="FILE", help="write to FILE (needed for parquet on a terminal)")
    made.add_argument("--as-of", metavar="D", help="only what was known at 09:00 New York on the session after D")
    made.add_argument("--beside", metavar="LAKE", help="another lake to compare with: its views are in the schema `beside`")


def sql_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.lake import open_lake
    from flowlake.report import terminal

    settings = _settings(arguments)
    lake = open_lake(settings=settings)
    beside = open_lake(settings=replace(settings, lake=arguments.beside)) if arguments.beside else None
    frame = (lake.as_of(arguments.as_of) if arguments.as_of else lake).sql(arguments.query, beside=beside)
    if arguments.format == "parquet":
        if not arguments.output and sys.stdout.isatty():
            raise UsageError("Parquet is no text for a terminal", "add --output FILE, or redirect")
        frame.write_parquet(arguments.output or sys.stdout.buffer)
        return 0
    out = terminal.frame_text(frame, arguments.format)
    if arguments.output:
        Path(arguments.output).write_text(out, encoding="utf-8")
    else:
        sys.stdout.write(out)
    return 0


def _add_datasets(commands: Commands) -> None:
    made = _command(
        commands, "datasets", datasets_command, "What the lake can hold, and what it holds.", "flowlake datasets option_iv"
    )
    made.add_argument("name", nargs="?", help="show the columns of one dataset")
    made.add_argument("--json", action="store_true")


def datasets_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.lake import open_lake
    from flowlake.pipeline.reporting import print_dataset, print_datasets

    lake = open_lake(settings=_settings(arguments))
    if arguments.name:
        print_dataset(arguments.name, arguments.json)
    else:
        print_datasets(lake, arguments.json)
    return 0


def _add_doctor(commands: Commands) -> None:
    made = _command(
        commands,
        "doctor",
        doctor_command,
        "Check settings, bucket and lake; say which factors abstain and what would feed them.",
        "flowlake doctor",
    )
    made.add_argument("--json", action="store_true")


def doctor_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.doctor import examine
    from flowlake.pipeline.reporting import print_examination

    return print_examination(examine(_settings(arguments)), arguments.json)


def _add_demo(commands: Commands) -> None:
    made = _command(
        commands,
        "demo",
        demo_command,
        "The main job on a synthetic market with known truth, behind a real S3 server on this machine.",
        "flowlake demo --folder .demo",
    )
    made.add_argument("--folder", default=".demo", help="where lake, bucket and truth are put (default .demo)")
    made.add_argument("--underlyings", type=_positive, default=12)
    made.add_argument("--sessions", type=_positive, default=64)
    made.add_argument("--seed", type=int, default=20240102)
    made.add_argument("--workers", type=_positive, default=2)


def demo_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.demo import demo

    return demo(Path(arguments.folder), arguments.underlyings, arguments.sessions, arguments.seed, arguments.workers)


def _add_airflow(commands: Commands) -> None:
    made = _command(
        commands,
        "airflow",
        airflow_command,
        "A whole Airflow on this machine until Ctrl-C: on the bucket of the settings, or without one on a synthetic market.",
        "flowlake airflow --folder .airflow --port 8080",
    )
    made.add_argument("--folder", default=".airflow", help="where Airflow's state, and the lake of a synthetic market, are kept")
    made.add_argument("--dags", default="dags", help="the repository's folder of DAGs (default dags)")
    made.add_argument("--port", type=_positive, default=8080, help="of the web pages, on this machine only (default 8080)")
    made.add_argument("--underlyings", type=_positive, default=6, help="of the synthetic market (default 6)")
    made.add_argument("--sessions", type=_positive, default=15, help="of the synthetic market (default 15)")
    made.add_argument("--seed", type=int, default=20240102)


def airflow_command(arguments: argparse.Namespace) -> int:
    from flowlake.market.spec import MarketSpec
    from flowlake.pipeline.local_airflow import serve

    spec = MarketSpec(seed=arguments.seed, sessions=arguments.sessions, underlyings=arguments.underlyings)
    return serve(_settings(arguments), Path(arguments.folder), Path(arguments.dags), arguments.port, spec)


def _add_backtest(commands: Commands) -> None:
    made = _command(
        commands,
        "backtest",
        backtest_command,
        "Whether the signals were worth anything: rolling windows, intervals, and simple baselines beside them.",
        "flowlake backtest --from 2024-01-02 --to 2024-03-28",
    )
    made.add_argument("--from", dest="first", type=_day, metavar="D")
    made.add_argument("--to", dest="last", type=_day, metavar="D")
    made.add_argument("--json", action="store_true")


def backtest_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.backtesting import backtest
    from flowlake.report import terminal

    result = backtest(_recorded_settings(arguments), arguments.first, arguments.last)
    if arguments.json:
        terminal.print_json(result.to_dict())
    else:
        sys.stdout.write(result.to_text() + "\n")
    return 0


def _add_report(commands: Commands) -> None:
    made = _command(
        commands,
        "report",
        report_command,
        "The signals of a session with their reasons and doubts.",
        "flowlake report --session 2024-03-01",
    )
    made.add_argument("--session", type=_day, metavar="D", help="default: the newest that has signals")
    made.add_argument("--top", type=_positive, default=10, help="how many signals (default 10)")
    made.add_argument("--json", action="store_true")


def report_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.lake import open_lake
    from flowlake.report.signals import print_signals

    print_signals(open_lake(settings=_settings(arguments)).sql, arguments.session, arguments.top, arguments.json)
    return 0


def _add_models(commands: Commands) -> None:
    made = _command(
        commands,
        "models",
        models_command,
        "What was fitted for a session: models with their training window, calibrations with their skill, and a week before.",
        "flowlake models --session 2024-03-01",
    )
    made.add_argument("--session", type=_day, metavar="D", help="default: the newest that has models")
    made.add_argument("--json", action="store_true")


def models_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.lake import open_lake
    from flowlake.report.models import print_models

    print_models(open_lake(settings=_settings(arguments)).sql, arguments.session, arguments.json)
    return 0


def _add_alerts(commands: Commands) -> None:
    made = commands.add_parser(
        "alerts",
        help="Notifications: triggers, sending, what waits, a test message.",
        description="Tell people when it matters: by e-mail, webhook, Telegram or a file. docs/alerts.md sets the channels up.",
        epilog="example:\n  flowlake alerts send --session 2024-03-01 --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = made.add_subparsers(metavar="COMMAND", required=True)
    listed = _command(
        group, "list", alerts_list_command, "Triggers: what they watch, and up to when they have data.", "flowlake alerts list"
    )
    sent = _command(
        group,
        "send",
        alerts_send_command,
        "Evaluate the triggers on sessions and deliver what is new. What was told once is not told again.",
        "flowlake alerts send --last 5 --within 7",
    )
    which = sent.add_mutually_exclusive_group(required=True)
    which.add_argument("--session", type=_day, metavar="D")
    which.add_argument("--last", type=_positive, metavar="N", help="the newest N sessions whose signals are due")
    sent.add_argument("--dry-run", action="store_true", help="only say what would be told")
    sent.add_argument(
        "--within", type=_positive, metavar="DAYS", help="tell nothing of a session that became known longer ago, as in a backfill"
    )
    flushed = _command(group, "flush", alerts_flush_command, "Deliver what waits.", "flowlake alerts flush --wait 300")
    flushed.add_argument("--retry", action="store_true", help="also what was refused or given up")
    for one in (sent, flushed):
        one.add_argument(
            "--wait", type=_seconds, default=0.0, metavar="SECONDS", help="how long to try again what fails (default 0)"
        )
    tested = _command(
        group, "test", alerts_test_command, "Send a test message at once, past the outbox.", "flowlake alerts test --channel email"
    )
    tested.add_argument("--channel", default="", choices=CHANNELS, metavar="NAME", help=f"one of: {', '.join(CHANNELS)}")
    shown = _command(
        group, "status", alerts_status_command, "What was delivered, what waits, what was given up.", "flowlake alerts status"
    )
    for one in (listed, sent, flushed, tested, shown):
        one.add_argument("--json", action="store_true")
    watching = _command(
        group,
        "watch",
        alerts_watch_command,
        "Tell of alert rules that fire in a Prometheus, and deliver what waits: every minute, until it is stopped.",
        "flowlake alerts watch --prometheus http://localhost:9090",
    )
    watching.add_argument("--prometheus", required=True, metavar="URL", help="where Prometheus answers")
    watching.add_argument("--once", action="store_true", help="ask one time and end, for cron")
    watching.add_argument("--mark", type=Path, metavar="FILE", help="touch FILE after each round in which the outbox could be used")


def alerts_list_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.notifying import availability
    from flowlake.pipeline.notifying_report import print_triggers

    return print_triggers(availability(_settings(arguments)), arguments.json)


def alerts_send_command(arguments: argparse.Namespace) -> int:
    from flowlake.core.sessions import last_actionable
    from flowlake.pipeline.notifying import notify
    from flowlake.pipeline.notifying_report import heard_by, print_told
    from flowlake.report import terminal

    sessions = [arguments.session] if arguments.session else last_actionable(datetime.now(UTC), arguments.last)
    with terminal.progress("messages") as advance:
        told = notify(
            _settings(arguments),
            sessions,
            dry_run=arguments.dry_run,
            wait_seconds=arguments.wait,
            heard=heard_by(advance),
            within_days=arguments.within,
        )
    return print_told(told, arguments.json, arguments.dry_run)


def alerts_flush_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.notifying import flush
    from flowlake.pipeline.notifying_report import heard_by, print_told
    from flowlake.report import terminal

    with terminal.progress("messages") as advance:
        told = flush(_settings(arguments), None, arguments.retry, arguments.wait, heard_by(advance))
    return print_told(told, arguments.json)


def alerts_test_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.notifying import send_test
    from flowlake.pipeline.notifying_report import attempt_json, print_attempts
    from flowlake.report import terminal

    attempts = send_test(_settings(arguments), arguments.channel)
    if arguments.json:
        terminal.print_json([attempt_json(attempt) for attempt in attempts])
        return 1 if any(attempt.state != "accepted" for attempt in attempts) else 0
    return print_attempts(attempts)


def alerts_status_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.notifying import queue
    from flowlake.pipeline.notifying_report import print_queue

    return print_queue(queue(_settings(arguments)), arguments.json)


def alerts_watch_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.watching import watch

    return watch(_settings(arguments), arguments.prometheus, arguments.once, arguments.mark)


def _add_market(commands: Commands) -> None:
    made = _command(
        commands,
        "market",
        market_command,
        "Write a synthetic market: vendor files in a folder, its truth beside them.",
        "flowlake market --out /tmp/market",
    )
    made.add_argument("--out", required=True, metavar="FOLDER", help="gets bucket/ and truth/")
    made.add_argument("--underlyings", type=_positive, default=12)
    made.add_argument("--sessions", type=_positive, default=64)
    made.add_argument("--first", type=_day, default=date(2024, 1, 2), metavar="D", help="first session (default 2024-01-02)")
    made.add_argument("--seed", type=int, default=20240102)
    made.add_argument("--options-only", action="store_true", help="no stock files and no reference files")


def market_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.demo import write_market

    write_market(
        Path(arguments.out), arguments.underlyings, arguments.sessions, arguments.first, arguments.seed, arguments.options_only
    )
    return 0


def _add_verify(commands: Commands) -> None:
    made = _command(
        commands,
        "verify",
        verify_command,
        "Read every partition and compare its values with the hash in its footer.",
        "flowlake verify",
    )
    made.add_argument("--json", action="store_true")


def verify_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import verify
    from flowlake.pipeline.reporting import print_verification

    return print_verification(verify(_settings(arguments)), arguments.json)


def _add_restore(commands: Commands) -> None:
    made = _command(
        commands,
        "restore",
        restore_command,
        "List the revisions of a partition, or serve an earlier one again.",
        "flowlake restore signals 2024-03-01 3fa9",
    )
    made.add_argument("dataset")
    made.add_argument("session", type=_day)
    made.add_argument("revision", nargs="?", help="first characters of a revision's hash; without it they are listed")
    _add_wait(made)


def restore_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import list_revisions, restore_revision

    settings = _recorded_settings(arguments)
    if arguments.revision is None:
        sys.stdout.write(list_revisions(settings, arguments.dataset, arguments.session))
    else:
        sys.stdout.write(restore_revision(settings, arguments.dataset, arguments.session, arguments.revision, arguments.wait))
    return 0


def _add_prune(commands: Commands) -> None:
    made = _command(
        commands,
        "prune",
        prune_command,
        "Delete what retention allows: old history, old partitions of datasets that say so, old records of steps. Pack the rest.",
        "flowlake prune --dry-run",
    )
    made.add_argument("--keep-history", type=_positive, default=30, metavar="N", help="sessions whose history is kept (default 30)")
    made.add_argument(
        "--keep-runs",
        type=_positive,
        metavar="DAYS",
        help="delete rows of runs, audits and findings older than DAYS (default: keep all); invocations, publications, objects and "
        "trials are always kept, because earlier revisions, freshness and the count of trials rest on them",
    )
    made.add_argument("--dry-run", action="store_true", help="only say what would go")
    _add_wait(made)


def prune_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import prune

    sys.stdout.write(
        prune(_recorded_settings(arguments), arguments.keep_history, arguments.dry_run, arguments.wait, arguments.keep_runs)
    )
    return 0


def _add_backup(commands: Commands) -> None:
    made = _command(
        commands,
        "backup",
        backup_command,
        "Copy what the bucket cannot give again: records of runs, signals and models as they were published, their history.",
        "flowlake backup --to /mnt/backup/options",
    )
    made.add_argument("--to", required=True, metavar="PLACE", help="a folder, or s3://bucket/prefix with the lake's keys")
    made.add_argument("--everything", action="store_true", help="the whole lake, raw and curated partitions too")
    made.add_argument("--json", action="store_true")


def backup_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.backup import backup, print_backup
    from flowlake.pipeline.outboxes import outbox_to_keep

    settings = _settings(arguments)
    return print_backup(backup(settings, arguments.to, arguments.everything, outbox_to_keep(settings)), arguments.json)


def _add_recover(commands: Commands) -> None:
    made = _command(
        commands,
        "recover",
        recover_command,
        "Copy back from a backup what the lake lacks; a run rebuilds the rest from the bucket.",
        "flowlake recover --from /mnt/backup/options --dry-run",
    )
    made.add_argument("--from", dest="place", required=True, metavar="PLACE", help="what `backup --to` was given")
    made.add_argument("--force", action="store_true", help="replace files that differ by those of the backup")
    made.add_argument("--dry-run", action="store_true", help="only say what would be copied")
    _add_wait(made)
    made.add_argument("--json", action="store_true")


def recover_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.backup import print_backup, recover
    from flowlake.pipeline.outboxes import outbox_to_keep

    settings = _settings(arguments)
    report = recover(settings, arguments.place, arguments.force, arguments.dry_run, arguments.wait, outbox_to_keep(settings))
    return print_backup(report, arguments.json)


def _add_metrics(commands: Commands) -> None:
    said = "The state of the lake as Prometheus metrics: steps, freshness, audits, quarantine, signals, drift."
    group = commands.add_parser("metrics", help=said, description=said).add_subparsers(metavar="COMMAND", required=True)
    shown = _command(
        group, "show", metrics_show_command, "Print them, or write the file that node_exporter reads.", "flowlake metrics show"
    )
    pushed = _command(
        group,
        "push",
        metrics_push_command,
        "Push them to a Pushgateway, in place of what was pushed before.",
        "flowlake metrics push --gateway http://localhost:9091",
    )
    for made in (shown, pushed):
        made.add_argument("--session", type=_day, metavar="D", help="as if no later session were due (default: what is due by now)")
    shown.add_argument("--textfile", type=Path, metavar="PATH", help="write PATH, which ends in .prom, instead of printing")
    pushed.add_argument("--gateway", default="", metavar="URL", help="the Pushgateway, instead of FLOWLAKE_PUSHGATEWAY")
    pushed.add_argument("--instance", default="", metavar="NAME", help="label of this lake's figures (default: the lake's address)")


def metrics_show_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline import measuring

    if arguments.textfile:
        measuring.write_textfile(_settings(arguments), arguments.textfile, arguments.session)
    else:
        sys.stdout.write(measuring.show(_settings(arguments), arguments.session))
    return 0


def metrics_push_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline import measuring

    address, instance, values = measuring.push(_settings(arguments), arguments.gateway, arguments.instance, arguments.session)
    sys.stdout.write(f"{values} values of {instance} pushed to {address}\n")
    return 0


def _add_render(commands: Commands) -> None:
    made = _command(
        commands,
        "render",
        render_command,
        "Write what is rendered from the declarations: suites, schemas, views, data dictionary.",
        "flowlake render --check",
    )
    made.add_argument("--root", default=".", help="the repository (default: the current folder)")
    made.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")


def render_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import render

    drifted = render(Path(arguments.root), arguments.check)
    sys.stdout.write("".join(f"{line}\n" for line in drifted) or "all rendered files are up to date\n")
    return 1 if arguments.check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
