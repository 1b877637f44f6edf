"""A disk that is full: everybody is told, nothing is lost, and all goes on by itself when there is space."""

from pathlib import Path

from tests.support.trials.full_disk import (
    DISK_MEGABYTES,
    KINDS,
    fill_store,
    fill_up,
)
from tests.support.trials.site import Site
from tests.support.trials.small_disk import small_disk


def test_on_a_full_disk_nothing_is_decided_and_nothing_that_was_decided_is_lost(site: Site) -> None:
    """A page of a file in memory that the disk had no room for once ended the process, with everybody who was waiting."""
    with small_disk(DISK_MEGABYTES) as disk:
        try:
            outcome = fill_up(site, disk, 1)
        finally:
            site.kill_all()
    assert outcome.holds, outcome
    assert all(outcome.statuses[kind, status] > 0 for kind in KINDS for status in (200, 507))


def test_decisions_wait_in_the_log_while_the_disk_that_they_are_kept_on_is_full(
    site: Site, tmp_path: Path
) -> None:
    """The process that keeps them once ended with the first error; from then on nothing was kept, and nobody was told."""
    other = Site.over(
        tmp_path / "other", site.champion(), site.bundles.load(site.champion().bundle_sha256)
    )
    with small_disk(DISK_MEGABYTES) as disk:
        try:
            outcome = fill_store(other, disk)
        finally:
            other.kill_all()
            other.loop.instance.dispose()
    assert outcome.holds, outcome
