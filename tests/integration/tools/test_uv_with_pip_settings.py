"""uv installs by pip's settings: real settings files, a real index on this machine, the real pip and uv."""

import base64
import contextlib
import datetime
import functools
import hashlib
import http.server
import ipaddress
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.places import REPOSITORY

PACKAGE = "creditrisk-example-of-the-tests"
MODULE = PACKAGE.replace("-", "_")
PASSWORD = "s3cret%2Fpart"  # noqa: S105 - of a server of this test


def write_wheel(folder: Path, version: str) -> str:
    """A wheel of one module; the hash of its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{MODULE}-{version}-py3-none-any.whl"
    information = f"{MODULE}-{version}.dist-info"
    content = {
        f"{MODULE}.py": f"VERSION = {version!r}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*content, f"{information}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (content | {f"{information}/RECORD": record}).items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_index(folder: Path, version: str) -> str:
    """A simple index with one version of the package; the hash of its file."""
    digest = write_wheel(folder / PACKAGE, version)
    name = f"{MODULE}-{version}-py3-none-any.whl"
    (folder / PACKAGE / "index.html").write_text(f'<a href="{name}#sha256={digest}">{name}</a>')
    return digest


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _FilesForOneUser(_Files):
    credentials = base64.b64encode(b"bank:s3cret/part").decode()

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == f"Basic {self.credentials}":
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()


@contextlib.contextmanager
def serving(
    folder: Path,
    handler: type[_Files] = _Files,
    certificate: Path | None = None,
) -> Iterator[str]:
    """Host and port at which a folder is served, with TLS where there is a certificate."""
    bound = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Operator:
    """A home folder with settings of pip, and no settings of the machine that runs the tests."""

    home: Path

    def write(self, *lines: str) -> None:
        """The user's own settings file."""
        path = self.home / ".config" / "pip" / "pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))

    def install(self, digest: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Uv installs version 1.0 with this hash into a folder."""
        lock = self.home / "lock.txt"
        lock.write_text(f"{PACKAGE}==1.0 --hash=sha256:{digest}\n")
        uv = [sys.executable, str(REPOSITORY / "tools" / "uv_with_pip_settings.py")]
        options = ["--no-deps", "--require-hashes", "--target", str(self.target), "-r", str(lock)]
        return subprocess.run(
            [*uv, "pip", "install", "--python", sys.executable, *options],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "NO_PROXY": "127.0.0.1",
                "UV_CACHE_DIR": str(self.home / "cache"),
                "UV_HTTP_RETRIES": "0",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def target(self) -> Path:
        return self.home / "installed"

    @property
    def installed(self) -> bool:
        return (self.target / f"{MODULE}.py").exists()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    (tmp_path / "home").mkdir()
    return Operator(tmp_path / "home")


def test_an_index_with_a_password_is_used_and_the_password_is_not_shown(
    operator: Operator, tmp_path: Path
) -> None:
    digest = write_index(tmp_path / "index", "1.0")
    with serving(tmp_path / "index", _FilesForOneUser) as address:
        operator.write("[global]", f"index-url = http://bank:{PASSWORD}@{address}/")
        result = operator.install(digest)
    assert result.returncode == 0, result.stderr
    assert operator.installed
    assert PASSWORD not in result.stdout + result.stderr


def test_a_failure_does_not_show_the_password(operator: Operator, tmp_path: Path) -> None:
    digest = write_index(tmp_path / "index", "0.9")
    with serving(tmp_path / "index", _FilesForOneUser) as address:
        operator.write("[global]", f"index-url = http://bank:{PASSWORD}@{address}/")
        result = operator.install(digest)
    assert result.returncode != 0
    assert f"no version of {PACKAGE}==1.0" in " ".join(result.stderr.split())
    assert PASSWORD not in result.stdout + result.stderr


def test_the_locked_version_is_found_on_the_second_index_though_the_first_has_another(
    operator: Operator, tmp_path: Path
) -> None:
    write_index(tmp_path / "first", "0.9")
    digest = write_index(tmp_path / "second", "1.0")
    file = tmp_path / "pip.conf"
    with serving(tmp_path) as address:
        file.write_text(
            f"[global]\nindex-url = http://{address}/first\n"
            f"[install]\nextra-index-url =\n    http://{address}/second\n"
        )
        result = operator.install(digest, PIP_CONFIG_FILE=str(file))
    assert result.returncode == 0, result.stderr
    assert operator.installed


def test_a_variable_of_pip_wins_over_the_file(operator: Operator, tmp_path: Path) -> None:
    digest = write_index(tmp_path / "index", "1.0")
    operator.write("[global]", "index-url = http://127.0.0.1:9/simple")
    with serving(tmp_path / "index") as address:
        result = operator.install(digest, PIP_INDEX_URL=f"http://{address}/")
    assert result.returncode == 0, result.stderr
    assert operator.installed


def test_folders_of_wheels_need_no_index(operator: Operator, tmp_path: Path) -> None:
    digest = write_wheel(tmp_path / "wheels,2026", "1.0")
    result = operator.install(
        digest,
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=f"{tmp_path / 'not-there'} {tmp_path / 'wheels,2026'}",
    )
    assert result.returncode == 0, result.stderr
    assert operator.installed


def test_a_file_with_another_hash_is_refused(operator: Operator, tmp_path: Path) -> None:
    write_index(tmp_path / "index", "1.0")
    operator.write("[global]", f"index-url = {(tmp_path / 'index').as_uri()}")
    result = operator.install("0" * 64)
    assert result.returncode != 0
    assert "Hash mismatch" in result.stderr
    assert not operator.installed


def test_an_index_with_a_certificate_of_the_bank_s_own_is_trusted_only_if_pip_trusts_it(
    operator: Operator, tmp_path: Path
) -> None:
    digest = write_index(tmp_path / "index", "1.0")
    certificate = self_signed(tmp_path / "certificate.pem")
    with serving(tmp_path / "index", certificate=certificate) as address:
        index = ("[global]", f"index-url = https://{address}/")
        operator.write(*index)
        assert operator.install(digest).returncode != 0
        assert not operator.installed
        operator.write(*index, f"cert = {certificate}")
        trusted = operator.install(digest)
        assert trusted.returncode == 0, trusted.stderr
        operator.write(*index, f"trusted-host = {address}")
        unchecked = operator.install(digest, UV_CACHE_DIR=str(tmp_path / "other-cache"))
        assert unchecked.returncode == 0, unchecked.stderr


def test_settings_that_pip_cannot_read_end_it_with_pips_own_message(operator: Operator) -> None:
    operator.write("index-url = outside of any section")
    result = operator.install("0" * 64)
    assert result.returncode != 0
    assert "pip.conf" in result.stderr
    assert not operator.installed


def self_signed(path: Path) -> Path:
    """A key and its own certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
