"""What documents the model in force: its card and its curves, as they were written beside the run that trained it."""

from creditrisk_assets.portfolio.storage import StoredPath, store_errors, zone_path
from creditrisk_assets.scoring.bundle import ChampionRecord

CARD = "model_card.html"
PLOTS = "plots"

CURVES = {
    "roc": "ROC curve: share of bads against share of goods at or above each PD",
    "calibration": "Calibration: bad rate against mean PD in ten bins",
    "ks": "KS: shares of goods and of bads up to each PD",
    "score_distribution": "Points of goods and of bads",
    "importance": "The features that matter most",
    "monotone_profiles": "Mean PD along features that may only raise or lower it",
}
"""The curves that may be asked for, by name, and what each shows. Nothing of an address ever becomes part of a path."""


def curves(record: ChampionRecord) -> dict[str, str]:
    """The curves that were written, by name, and what each shows.

    Raises:
        OSError: if the documents cannot be reached.
    """
    folder = _folder(record)
    if folder is None:
        return {}
    with store_errors(folder):
        written = {path.name for path in (folder / PLOTS).iterdir()} if (folder / PLOTS).is_dir() else set()
    return {name: text for name, text in CURVES.items() if f"{name}.png" in written}


def has_card(record: ChampionRecord) -> bool:
    """Whether the card was written.

    Raises:
        OSError: if the documents cannot be reached.
    """
    folder = _folder(record)
    if folder is None:
        return False
    with store_errors(folder):
        return (folder / CARD).is_file()


def card(record: ChampionRecord) -> bytes:
    """The model card, HTML.

    Raises:
        FileNotFoundError: if it was not written.
        OSError: if the documents cannot be reached.
    """
    return _read(record, CARD)


def curve(record: ChampionRecord, name: str) -> bytes:
    """A curve, PNG.

    Raises:
        FileNotFoundError: if it was not written, or there is none of this name.
        OSError: if the documents cannot be reached.
    """
    if name not in CURVES:
        raise FileNotFoundError(f"no curve {name!r}; valid: {', '.join(CURVES)}")
    return _read(record, f"{PLOTS}/{name}.png")


def _folder(record: ChampionRecord) -> StoredPath | None:
    """The folder, which is there from the first moment of a version's run on; None where the record names none."""
    if record.documents_uri is None:
        return None
    try:
        folder = zone_path(record.documents_uri)
    except ValueError as error:
        raise OSError(f"{record.documents_uri}: {error}") from error
    with store_errors(folder):
        if not folder.is_dir():
            raise OSError(f"{record.documents_uri} cannot be reached from here")
    return folder


def _read(record: ChampionRecord, name: str) -> bytes:
    folder = _folder(record)
    if folder is None:
        raise FileNotFoundError(f"{name} of version {record.model_version} was not written")
    with store_errors(folder):
        return bytes((folder / name).read_bytes())
