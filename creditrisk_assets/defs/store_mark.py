"""The mark of a store in its Dagster instance, and the resource `settings`, which compares it
before any step or sensor reads.

Dagster's database stores the mark among the daemons' cursors.
"""

import dagster as dg

from creditrisk_assets.settings import Settings
from creditrisk_assets.store import Identity, StoreMismatch, open_store, read_identity, require_same

MARK = "creditrisk.store"
CHAMPION = dg.AssetKey("champion")


def claim_instance(instance: dg.DagsterInstance, identity: Identity) -> None:
    """Mark a Dagster instance as a store's, or compare an existing mark.

    Raises:
        StoreMismatch: if the instance belongs to another store.
    """
    marked = mark_of(instance)
    if marked is not None:
        require_same(_named(instance), marked, identity)
        return
    if instance.get_latest_materialization_event(CHAMPION) is not None:
        raise StoreMismatch(
            f"{_named(instance)} has a champion that no store of this format made; valid: a new "
            "Dagster instance, or the store's own"
        )
    if not instance.is_ephemeral:
        instance.daemon_cursor_storage.set_cursor_values({MARK: identity.id})


def require_one_store(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Compare the settings' store with a Dagster instance. A new pair receives an identity; a
    marked instance without its store is an error.

    Raises:
        StoreMismatch: if they do not belong together.
    """
    identity, marked = read_identity(settings), mark_of(instance)
    if identity is None and marked is not None:
        raise StoreMismatch(
            f"{_named(instance)} belongs to store {marked}, and CREDITRISK_DATA_DIR is "
            f"{settings.data_dir}, where there is no store yet; valid: a Dagster instance of its "
            "own for each store, as the project's dagster.yaml gives it"
        )
    claim_instance(instance, identity or open_store(settings))


def checked_settings(settings: Settings) -> dg.ResourceDefinition:
    """The resource `settings`, with the policy as its file is now. Its creation fails if the
    Dagster instance belongs to another store.
    """

    def settings_of_run(context: dg.InitResourceContext) -> Settings:
        if context.instance is not None:
            require_one_store(settings, context.instance)
        return settings.model_copy(update={"policy": settings.policy.current()})

    return dg.ResourceDefinition(
        settings_of_run, description="Where things are, and by which limits decisions are taken."
    )


def mark_of(instance: dg.DagsterInstance) -> str | None:
    """Id of the store that a Dagster instance belongs to, or None."""
    return (
        None
        if instance.is_ephemeral
        else instance.daemon_cursor_storage.get_cursor_values({MARK}).get(MARK)
    )


def _named(instance: dg.DagsterInstance) -> str:
    return f"the Dagster instance of {instance.root_directory}"
