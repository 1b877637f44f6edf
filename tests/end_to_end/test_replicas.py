"""Replicas of the API on one store: what `python -m benchmarks.serving.replicas` does for minutes."""

from tests.support.postgres import new_database, postgres_server
from tests.support.trials.replicas import Load, replicas_of, run
from tests.support.trials.site import Site


def test_replicas_that_are_killed_under_load_lose_nothing_and_decide_no_key_twice(
    site: Site,
) -> None:
    with postgres_server() as server, new_database(server) as url:
        load = Load(decisions=300, promotions=2, kill_seconds=1.5, seed=5)
        outcome = run(replicas_of(site, url, 2), load)
    assert outcome.holds, outcome
    assert outcome.acknowledged >= 300
