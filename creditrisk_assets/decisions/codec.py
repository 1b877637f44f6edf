"""What decisions pass through on their way to the decision log and back: the place for encryption
at rest.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Codec(Protocol):
    """What a payload passes through on its way to the disk and back: the place for encryption at
    rest.
    """

    def encode(self, payload: bytes) -> bytes:
        """As it is written."""

    def decode(self, payload: bytes) -> bytes:
        """As it was.

        Raises:
            Exception: whatever says that it cannot be decoded.
        """


class Plain:
    """Payloads are written as they are."""

    def encode(self, payload: bytes) -> bytes:
        """The same."""
        return payload

    def decode(self, payload: bytes) -> bytes:
        """The same."""
        return payload


PLAIN = Plain()
