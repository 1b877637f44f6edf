"""Codecs of the decision log: the place for encryption at rest."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Codec(Protocol):
    """Encodes payloads before they are written, and decodes them again."""

    def encode(self, payload: bytes) -> bytes:
        """The bytes to write."""

    def decode(self, payload: bytes) -> bytes:
        """The original payload.

        Raises:
            Exception: if it cannot be decoded; of any type.
        """


class Plain:
    """Payloads are written as they are."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, payload: bytes) -> bytes:
        return payload


PLAIN = Plain()
