"""Where the repository and the real data are, and what a machine of a bank looks like."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
REFUSING_PROXY = dict.fromkeys(
    ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
)
"""Variables of a machine whose proxy refuses everything: port 9 (discard) has no listener."""
UCI_SHA256 = "a0f0ab49d6326671d6cd83be5c88dcf18007025fe9a53ecd699119c871176ca1"
"""Of the published file of credit-card customers."""


def uci_file() -> Path:
    """The published file: where the environment says, or beside the repository."""
    named = os.environ.get("CREDITRISK_TEST_UCI")
    return (
        Path(named)
        if named
        else REPOSITORY.parent / "shared" / "data" / "uci_credit_card_default.csv"
    )
