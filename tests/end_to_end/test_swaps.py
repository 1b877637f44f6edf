"""Champions that change under load, with several workers."""

from tests.support.examples import handmade_champion
from tests.support.trials.site import Site, running
from tests.support.trials.swaps import swap


def test_champions_take_turns_under_load_and_every_answer_is_the_named_bundle_s_own(
    site: Site,
) -> None:
    """A worker that lags behind, or an answer made of two champions, would be noticed by nobody but the customer."""
    site.workers = 2
    headers = site.new_key("bank", "predict", "read")
    other, bundle = handmade_champion(site.loop.home, "2", "utilisation_mean", -1.0)
    site.bundles.put(bundle)
    with running(site):
        outcome = swap(site, [site.champion(), other], 6, headers)
    assert outcome.holds, outcome
    assert (outcome.swaps, outcome.refused) == (6, 1)
