# Two images of one version. `serving` has the API and its sidecars; `dagster` has every process, and docker-compose.yml says which.
# docker build --target serving --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# An internal index of packages; by default pip's own.
ARG PIP_INDEX_URL
WORKDIR /build
RUN python -m venv tools && python -m venv --without-pip /app/venv
COPY requirements-build.lock tools/install_packages.sh ./
RUN tools/bin/pip install --quiet --no-cache-dir --no-deps --require-hashes -r requirements-build.lock

# The locks are complete, so pip resolves nothing. Their layers are rebuilt only when a lock changes, not with the code.
FROM build AS dagster-packages
COPY requirements.lock ./
RUN sh install_packages.sh requirements.lock

FROM build AS serving-packages
COPY requirements-serving.lock ./
RUN sh install_packages.sh requirements-serving.lock

FROM build AS project
COPY pyproject.toml README.md LICENSE ./
COPY creditrisk_assets creditrisk_assets
COPY serving serving
RUN tools/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .

FROM dagster-packages AS dagster-app
COPY --from=project /build/wheels wheels
RUN sh install_packages.sh

FROM serving-packages AS serving-app
COPY --from=project /build/wheels wheels
RUN sh install_packages.sh

FROM ${PYTHON_IMAGE} AS runtime
WORKDIR /app
# An empty named volume takes the owner of the folder that it covers. Libraries keep their caches in the home folder, so it is /tmp.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp creditrisk && install --directory --owner creditrisk --group creditrisk data
COPY policy.toml ./
# GitPython complains on every run that there is no git.
ENV PATH=/app/venv/bin:$PATH DAGSTER_HOME=/app PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
LABEL org.opencontainers.image.title=creditrisk org.opencontainers.image.licenses=Apache-2.0

FROM runtime AS serving
COPY --from=serving-app /app/venv venv
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=60s CMD ["python", "-m", "creditrisk_assets.health_probe", "http://127.0.0.1:8000/health"]
CMD ["creditrisk", "serve", "--host", "0.0.0.0", "--port", "8000"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}

FROM runtime AS dagster
COPY --from=dagster-app /app/venv venv
COPY dagster.yaml ./
# One code server for webserver and daemon; by the repository's workspace.yaml each would start its own.
RUN echo 'load_from: [grpc_server: {host: code-server, port: 4000, location_name: creditrisk}]' > workspace.yaml
USER 10001:10001
CMD ["creditrisk", "--help"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}
