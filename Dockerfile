# One image for every process; docker-compose.yml says which of them a container runs.
FROM python:3.11-slim

WORKDIR /app

# The lock is complete, so pip resolves nothing. Its layer is rebuilt only when the lock changes, not with the code.
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock && rm requirements.lock

COPY . /src
RUN pip install --no-cache-dir --no-deps /src && mv /src/dagster.yaml /src/policy.toml . && rm -r /src

# One code server for webserver and daemon; by the repository's workspace.yaml each would start its own.
RUN echo 'load_from: [grpc_server: {host: code-server, port: 4000, location_name: creditrisk}]' > workspace.yaml

# An empty named volume takes the owner of the folder that it covers. Libraries keep their caches in the home folder, so it is /tmp.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp creditrisk && install --directory --owner creditrisk --group creditrisk data
USER creditrisk
# GitPython complains on every run that there is no git.
ENV DAGSTER_HOME=/app PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
CMD ["creditrisk", "--help"]
