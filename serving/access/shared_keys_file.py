"""The file of API keys of several replicas: it lies in the store's database, and each replica has a
local copy, by which it answers while the database is away.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creditrisk_assets.settings import Settings
from serving.access.keys import KeysError, read_keys, replace_keys_file


def is_shared(settings: Settings) -> bool:
    """True if the keys lie in the database; a file that the settings name comes first."""
    return settings.database_url is not None and settings.api_keys_file is None


@contextmanager
def keys_file(settings: Settings) -> Iterator[Path]:
    """The file of API keys, to read or to change. What lies in the database is changed by one
    process at a time, and only if the block ends without an error.

    Raises:
        KeysError: if the database does not answer.
    """
    if settings.database_url is None or not is_shared(settings):
        yield settings.api_keys
        return
    url = settings.database_url.get_secret_value()
    with _document(url) as document, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "api-keys.json"
        file.write_text(document.text)
        yield file
        document.text = file.read_text()


def copy_shared_keys(settings: Settings) -> None:
    """Copy the keys from the database to this replica's file, if they lie there.

    Raises:
        KeysError: if the database does not answer, or has no file of keys.
    """
    if not is_shared(settings):
        return
    with keys_file(settings) as shared:
        read_keys(shared)
        text = shared.read_text()
    local = settings.api_keys
    if not local.exists() or local.read_text() != text:
        local.parent.mkdir(parents=True, exist_ok=True)
        replace_keys_file(local, text)


def shared_keys_problem(settings: Settings) -> str | None:
    """Copy the keys; the reason if that is not possible, or None."""
    try:
        copy_shared_keys(settings)
    except (KeysError, OSError) as error:
        return str(error)
    return None


class _Document:
    """The text of the file in the database."""

    def __init__(self, text: str) -> None:
        self.text = text


@contextmanager
def _document(url: str) -> Iterator[_Document]:
    """The document, locked; a changed text is written at the end."""
    import sqlalchemy as sa

    from creditrisk_assets import database

    database.limit_waits()
    engine = database.connect(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('api_keys'))"))
            before = connection.execute(sa.text("SELECT document FROM api_keys")).scalar() or ""
            document = _Document(before)
            yield document
            if document.text != before:
                connection.execute(
                    sa.text(
                        "INSERT INTO api_keys (number, document) VALUES (1, :text) "
                        "ON CONFLICT (number) DO UPDATE SET document = :text"
                    ),
                    {"text": document.text},
                )
    except sa.exc.SQLAlchemyError as error:
        raise KeysError(f"the API keys in the database cannot be read: {error!s:.200}") from error
    finally:
        engine.dispose()
