"""The pictures of the documents: each is taken by the script, and small."""

import struct

import pytest

from tools.screenshots import BYTES_LIMIT, IMAGES, PICTURES


def test_every_picture_of_the_documents_is_taken_by_the_script() -> None:
    assert {file.stem for file in IMAGES.glob("*.png")} == {*PICTURES}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_size_of_its_frame_and_few_bytes(name: str) -> None:
    """A picture that was taken otherwise stands out on its page."""
    content = (IMAGES / f"{name}.png").read_bytes()
    frame, size = PICTURES[name].frame, PICTURES[name].size
    assert struct.unpack(">2I", content[16:24]) == (
        size if frame is None else (frame["width"], frame["height"])
    )
    assert len(content) <= BYTES_LIMIT
