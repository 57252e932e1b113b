# One image for everything that runs flowlake: the command, Airflow's parts, Dask's scheduler and workers. The target `notebook`
# adds the pages of Jupyter. All versions come from uv.lock.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm


FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.8
ENV UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /opt/flowlake
RUN pip install --no-cache-dir uv==${UV_VERSION}
COPY pyproject.toml uv.lock README.md LICENSE ./
# The libraries first, as a layer of their own: they change less often than the code.
RUN uv sync --frozen --no-default-groups --no-install-project --extra airflow
COPY src src
RUN uv sync --frozen --no-default-groups --no-editable --extra airflow
# A layer keeps times of files in whole seconds, and the cache of kernels compares times: without this every kernel would be compiled
# again in every container.
RUN find .venv -name '*.py' -exec touch -d "@$(date +%s)" {} + \
    && .venv/bin/python -m compileall -q .venv/lib


# A short run of the demo compiles the kernels, for the processor that builds. The demo needs an S3 server, which the image does not.
FROM build AS kernels
ENV NUMBA_CACHE_DIR=/var/cache/flowlake
RUN uv sync --frozen --no-default-groups --no-install-project --inexact --extra demo \
    && .venv/bin/flowlake demo --folder /tmp/demo --underlyings 3 --sessions 4 --workers 1


FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="flowlake" \
      org.opencontainers.image.description="US options files to an audited Parquet lake and signals of unusual order flow" \
      org.opencontainers.image.licenses="Apache-2.0"
# Whatever a container writes lies in one of these folders; each is a volume or a tmpfs in docker-compose.yml.
RUN groupadd --gid 10001 flowlake \
    && useradd --uid 10001 --gid flowlake --create-home --shell /usr/sbin/nologin flowlake \
    && install --directory --owner flowlake --group flowlake \
        /lake /backup /opt/airflow /opt/airflow/logs /opt/airflow/login
ENV PATH="/opt/flowlake/.venv/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/flowlake \
    GX_ANALYTICS_ENABLED=false \
    FLOWLAKE_LAKE=/lake \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/flowlake/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/flowlake/dags/plugins
WORKDIR /opt/flowlake
COPY --from=build /opt/flowlake/.venv .venv
COPY --from=kernels --chown=10001:10001 /var/cache/flowlake /var/cache/flowlake
COPY LICENSE README.md ./
COPY dags dags
COPY deploy deploy
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 CMD ["flowlake", "--version"]
ENTRYPOINT ["flowlake"]
CMD ["--help"]


FROM build AS build-notebook
RUN uv sync --frozen --no-default-groups --no-install-project --inexact --extra notebook --extra demo --group jupyter \
    && .venv/bin/python -m compileall -q .venv/lib


FROM runtime AS notebook
COPY --from=build-notebook /opt/flowlake/.venv .venv
COPY --chown=10001:10001 notebooks /home/flowlake/notebooks
WORKDIR /home/flowlake/notebooks
ENTRYPOINT []
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8889", "--no-browser"]


# Last, so that it is what a build without a target makes.
FROM runtime AS flowlake
