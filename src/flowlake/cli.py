"""The command line. Each subcommand is a thin reading of arguments; the work is done below."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from flowlake import __version__
from flowlake.core.errors import FlowlakeError, UsageError
from flowlake.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from flowlake.pipeline.run import Request

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EPILOG = """exit codes: 0 all built or fresh, 1 failed, 2 wrong usage, 3 done but something was quarantined

settings come from FLOWLAKE_* variables, over flowlake.toml in the current folder:
  FLOWLAKE_LAKE               folder or s3://bucket/prefix (default ./lake)
  FLOWLAKE_BUCKET_NAME, FLOWLAKE_BUCKET_ENDPOINT, FLOWLAKE_BUCKET_PREFIX
  FLOWLAKE_BUCKET_KEY_ID, FLOWLAKE_BUCKET_SECRET
  FLOWLAKE_DASK_SCHEDULER     tcp://host:8786, for --executor dask

try first: flowlake demo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=[_log_handler(arguments)])
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        code: int = arguments.command(arguments)
    except FlowlakeError as error:
        sys.stderr.write(f"flowlake: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours must not reach the user as a traceback
        path = Path(tempfile.gettempdir()) / "flowlake-error.txt"
        path.write_text(traceback.format_exc(), encoding="utf-8")
        sys.stderr.write(f"flowlake: an unexpected {type(error).__name__}: {error}\n  cure: please report it with {path}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nflowlake: stopped; what was published stays. Run the same command again to go on.\n")
        return 1
    return code


def _log_handler(arguments: argparse.Namespace) -> logging.Handler:
    """Tracebacks go to a file that the operator can send along; a terminal shows facts and cures only."""
    target = getattr(arguments, "log", None)
    return logging.FileHandler(target) if target else logging.NullHandler()


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
    _add_sql(commands)
    _add_datasets(commands)
    _add_doctor(commands)
    _add_demo(commands)
    _add_backtest(commands)
    _add_report(commands)
    _add_market(commands)
    _add_verify(commands)
    _add_restore(commands)
    _add_prune(commands)
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


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = load_settings()
    return replace(settings, lake=arguments.lake) if arguments.lake else settings


def _add_range(made: argparse.ArgumentParser) -> None:
    made.add_argument("--session", type=_day, metavar="D", help="one session")
    made.add_argument("--from", dest="first", type=_day, metavar="D", help="first session, inclusive")
    made.add_argument("--to", dest="last", type=_day, metavar="D", help="last session, inclusive")
    made.add_argument("--step", nargs="+", default=[], metavar="NAME", help="only these steps or stages")
    made.add_argument("--retry", action="store_true", help="try again what quarantine holds")
    made.add_argument("--restate", action="store_true", help="replace windowed and fitted outputs whose inputs changed")


def _request(arguments: argparse.Namespace) -> Request:
    from flowlake.pipeline.plan import select
    from flowlake.pipeline.run import Request

    if arguments.session and (arguments.first or arguments.last):
        raise UsageError("--session and --from/--to exclude each other", "give one session, or a range")
    first = arguments.session or arguments.first
    last = arguments.session or arguments.last or first
    if first is None or last is None:
        raise UsageError("no session was given", "give --session D, or --from D --to D")
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
    made.add_argument("--no-data-docs", action="store_true", help="do not write the HTML pages of the audits")
    made.add_argument("--log", metavar="FILE", help="append technical details of failures to FILE")
    made.add_argument("--json", action="store_true", help="print the report as JSON")


def run_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline import run as pipeline_run
    from flowlake.pipeline.reporting import RunProgress, print_report, report_json, write_data_docs
    from flowlake.report import terminal

    settings = _settings(arguments)
    scheduler = arguments.scheduler or settings.dask_scheduler
    executor = arguments.executor or ("dask" if scheduler else "local")
    request = replace(_request(arguments), executor=executor, scheduler=scheduler, workers=arguments.workers)
    with terminal.progress("steps") as advance:
        shown = RunProgress(advance)
        report = pipeline_run.run(settings, request, shown.step, shown.fetched)
    docs = "" if arguments.no_data_docs else write_data_docs(settings, report)
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


def sql_command(arguments: argparse.Namespace) -> int:
    from flowlake.lake.lake import open_lake
    from flowlake.report import terminal

    lake = open_lake(settings=_settings(arguments))
    frame = (lake.as_of(arguments.as_of) if arguments.as_of else lake).sql(arguments.query)
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

    result = backtest(_settings(arguments), arguments.first, arguments.last)
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


def restore_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import list_revisions, restore_revision

    settings = _settings(arguments)
    if arguments.revision is None:
        sys.stdout.write(list_revisions(settings, arguments.dataset, arguments.session))
    else:
        sys.stdout.write(restore_revision(settings, arguments.dataset, arguments.session, arguments.revision))
    return 0


def _add_prune(commands: Commands) -> None:
    made = _command(
        commands,
        "prune",
        prune_command,
        "Delete what retention allows: old history, old partitions of datasets that say so.",
        "flowlake prune --dry-run",
    )
    made.add_argument("--keep-history", type=_positive, default=30, metavar="N", help="sessions whose history is kept (default 30)")
    made.add_argument("--dry-run", action="store_true", help="only say what would go")


def prune_command(arguments: argparse.Namespace) -> int:
    from flowlake.pipeline.maintenance import prune

    sys.stdout.write(prune(_settings(arguments), arguments.keep_history, arguments.dry_run))
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
