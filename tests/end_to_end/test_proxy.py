"""The proxy with TLS and login in front of the API, Dagster and MLflow: a real nginx, and the real three behind it."""

import base64
import datetime
import hashlib
import os
import socket
import ssl
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.processes import reserved_ports
from tests.support.places import REPOSITORY
from tests.support.programs import nginx
from tests.support.trials.site import Site
from tests.support.waiting import until

pytestmark = pytest.mark.nginx

TEMPLATE = REPOSITORY / "deploy" / "proxy" / "nginx.conf.template"
LOGIN = ("analyst", "correct horse")
NGINX = """
pid $folder/pid;
error_log $folder/error.log;
$user
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    include $folder/creditrisk.conf;
}
"""


@dataclass(frozen=True)
class Proxy:
    """The addresses behind the proxy, and its certificate."""

    api: str
    dagster: str
    mlflow: str
    certificate: Path

    def client(self, url: str, login: tuple[str, str] | None = None) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=url, verify=context, auth=login, trust_env=False, timeout=30)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@contextmanager
def process(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        started = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    try:
        yield
    finally:
        started.terminate()
        started.wait()


@pytest.fixture(scope="module")
def proxy(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    program = nginx()
    assert program is not None
    folder = tmp_path_factory.mktemp("proxy")
    dagster, mlflow, *tls = reserved_ports(5)
    pem, key = certificate(folder)
    password = base64.b64encode(hashlib.sha1(LOGIN[1].encode()).digest()).decode()  # noqa: S324 - a format of nginx
    (folder / "passwords").write_text(f"{LOGIN[0]}:{{SHA}}{password}\n")
    values = {
        "NAME_SERVER": "127.0.0.1",  # the addresses below need none
        "TLS_CERTIFICATE": str(pem),
        "TLS_KEY": str(key),
        "PASSWORD_FILE": str(folder / "passwords"),
        "API_TLS_PORT": f"127.0.0.1:{tls[0]}",
        "DAGSTER_TLS_PORT": f"127.0.0.1:{tls[1]}",
        "MLFLOW_TLS_PORT": f"127.0.0.1:{tls[2]}",
        "API_UPSTREAM": f"127.0.0.1:{site.port}",
        "DAGSTER_UPSTREAM": f"127.0.0.1:{dagster}",
        "MLFLOW_UPSTREAM": f"127.0.0.1:{mlflow}",
    }
    # As the image of nginx does: only the names in capitals are variables of the environment.
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    (folder / "creditrisk.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    whole = string.Template(NGINX).substitute(folder=folder, user=user)
    (folder / "nginx.conf").write_text(whole)
    tools = Path(sys.executable).parent
    local = ("--host", "127.0.0.1", "--port")
    with ExitStack() as stack:
        site.start()
        stack.callback(site.stop)
        webserver = [str(tools / "dagster-webserver"), "--empty-workspace", *local, str(dagster)]
        tracking = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
        stack.enter_context(process(folder, *webserver))
        stack.enter_context(
            process(folder, str(tools / "mlflow"), "server", *tracking, *local, str(mlflow))
        )
        command = [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        stack.enter_context(process(folder, *command, "-g", "daemon off;"))
        first, second, third = (f"https://localhost:{port}" for port in tls)
        made = Proxy(first, second, third, pem)
        for url, path, login in (
            (made.api, "/health", None),
            (made.dagster, "/server_info", LOGIN),
            (made.mlflow, "/health", LOGIN),
        ):
            with made.client(url, login) as client:
                until(partial(_answers, client, path), 90)
        yield made


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def test_the_api_decides_behind_the_proxy_and_its_metrics_stay_inside(proxy: Proxy) -> None:
    with proxy.client(proxy.api) as client:
        answer = client.post("/predict", json=dict(PORTFOLIO.example))
        assert answer.status_code == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert answer.headers["Server"] == "nginx"  # without its version
        assert client.get("/metrics").status_code == 403
        rows = "\n".join(["{}"] * 50_000)
        lines = {"Content-Type": "application/x-ndjson"}
        batch = client.post("/predict/batch", content=rows, headers=lines)
        assert batch.status_code == 200
        assert len(batch.text.splitlines()) == 50_000


@pytest.mark.parametrize("which", ["dagster", "mlflow"])
def test_nobody_without_a_login_reaches_dagster_or_mlflow(proxy: Proxy, which: str) -> None:
    url = str(getattr(proxy, which))
    for login in (None, (LOGIN[0], "wrong"), ("nobody", LOGIN[1])):
        with proxy.client(url, login) as client:
            assert client.get("/").status_code == 401
            assert client.post("/graphql", json={"query": "{version}"}).status_code == 401
    plain = httpx.get(url.replace("https", "http"), trust_env=False)
    assert plain.status_code == 400


def test_the_dagster_ui_works_with_its_subscriptions(proxy: Proxy) -> None:
    with proxy.client(proxy.dagster, LOGIN) as client:
        assert "<!doctype html>" in client.get("/").text.lower()
        answer = client.post("/graphql", json={"query": "{ version }"})
        assert answer.json()["data"]["version"]
    address = httpx.URL(proxy.dagster)
    assert address.port is not None
    login = base64.b64encode(":".join(LOGIN).encode()).decode()
    request = (
        "GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: graphql-ws\r\nAuthorization: Basic {login}\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    with (
        socket.create_connection(("127.0.0.1", address.port), 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        connection.sendall(request.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 101 ")


def test_mlflow_takes_what_its_ui_and_clients_send(proxy: Proxy) -> None:
    with proxy.client(proxy.mlflow, LOGIN) as client:
        assert client.get("/").status_code == 200
        made = client.post(
            "/api/2.0/mlflow/experiments/create",
            json={"name": "behind the proxy"},
            headers={"Origin": proxy.mlflow},
        )
        assert made.status_code == 200, made.text
