"""A disk that is full: everybody is told, nothing is lost, and all goes on by itself when there is space."""

import pytest

from benchmarks.serving_full_disk import DISK_MEGABYTES, KINDS, fill_up
from benchmarks.serving_site import Site
from benchmarks.small_disk import small_disk


@pytest.mark.parametrize("workers", [1])
def test_on_a_full_disk_nothing_is_decided_and_nothing_that_was_decided_is_lost(site: Site, workers: int) -> None:
    site.workers = workers
    with small_disk(DISK_MEGABYTES) as disk:
        try:
            outcome = fill_up(site, disk, 1)
        finally:
            site.kill_all()
    assert outcome.holds, outcome
    assert all(outcome.statuses[kind, status] > 0 for kind in KINDS for status in (200, 507))
