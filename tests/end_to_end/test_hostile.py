"""Hostile clients: each is answered or closed as it should be, and a good client beside them is answered all the time."""

from tests.support.trials.hostile import endure, impatient
from tests.support.trials.site import Site, running

IDLE = 2_000
PATIENCE = 3.0


def test_hostile_clients_are_answered_or_closed_and_a_good_one_beside_them_is_not_left_waiting(
    site: Site,
) -> None:
    site.environment = impatient(PATIENCE)
    headers = site.new_key("bank", "predict")
    with running(site):
        outcome = endure(site, headers, seconds=2.0, idle=IDLE, patience=PATIENCE, warm=True)
    assert not outcome.wrong, outcome.wrong
    assert outcome.idle == IDLE
    assert outcome.is_correct, outcome
    assert outcome.slowdown < 20, (
        outcome
    )  # a busy machine's noise is allowed; a second of waiting is not
