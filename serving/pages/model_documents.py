"""Reads the documents of the model in force: the card and the curves that its training run
stored.
"""

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import StoredPath, store_errors

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
"""The valid names of curves, and their captions. No other part of an address enters a path."""


def curves(data_dir: StoredPath, record: ChampionRecord) -> dict[str, str]:
    """The captions of the written curves, by name.

    Raises:
        OSError: if the documents cannot be reached.
    """
    folder = _folder(data_dir, record)
    if folder is None:
        return {}
    with store_errors(folder):
        files = (
            {path.name for path in (folder / PLOTS).iterdir()}
            if (folder / PLOTS).is_dir()
            else set()
        )
    return {name: text for name, text in CURVES.items() if f"{name}.png" in files}


def has_card(data_dir: StoredPath, record: ChampionRecord) -> bool:
    """True if the card was written.

    Raises:
        OSError: if the documents cannot be reached.
    """
    folder = _folder(data_dir, record)
    if folder is None:
        return False
    with store_errors(folder):
        return (folder / CARD).is_file()


def card(data_dir: StoredPath, record: ChampionRecord) -> bytes:
    """The model card, HTML.

    Raises:
        FileNotFoundError: if it was not written.
        OSError: if the documents cannot be reached.
    """
    return _read(data_dir, record, CARD)


def curve(data_dir: StoredPath, record: ChampionRecord, name: str) -> bytes:
    """A curve, PNG.

    Raises:
        FileNotFoundError: if it was not written, or the name is invalid.
        OSError: if the documents cannot be reached.
    """
    if name not in CURVES:
        raise FileNotFoundError(f"no curve {name!r}; valid: {', '.join(CURVES)}")
    return _read(data_dir, record, f"{PLOTS}/{name}.png")


def _folder(data_dir: StoredPath, record: ChampionRecord) -> StoredPath | None:
    """The folder, which a version's run creates first; None if the record names none."""
    if record.documents_uri is None:
        return None
    folder = data_dir / record.documents_uri
    with store_errors(folder):
        if not folder.is_dir():
            raise OSError(f"{folder} cannot be reached from here")
    return folder


def _read(data_dir: StoredPath, record: ChampionRecord, name: str) -> bytes:
    folder = _folder(data_dir, record)
    if folder is None:
        raise FileNotFoundError(f"{name} of version {record.model_version} was not written")
    with store_errors(folder):
        return bytes((folder / name).read_bytes())
