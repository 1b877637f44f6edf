"""Champions that no job of the loop made."""

import dagster as dg

from creditrisk_assets.defs.champion_commands import stored_policy
from creditrisk_assets.defs.store_mark import require_one_store
from creditrisk_assets.governance.ledger import InForce, Ledger, Move
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.simulation.stepped_loop import SteppedLoop


def name_champion(loop: SteppedLoop, record: ChampionRecord, *bundles: Bundle) -> ChampionRecord:
    """Put a model from elsewhere into force: in the ledger, then in the asset.

    Args:
        loop: whose champion it becomes.
        record: of the model, without its ledger entry.
        bundles: its bundle and fallback, if the store lacks them.

    Returns:
        The record with its ledger entry.
    """
    require_one_store(loop.settings, loop.instance)
    for bundle in bundles:
        BundleStore(loop.settings.data_dir).put(bundle)
    ledger = Ledger(loop.settings.ledger)
    head = ledger.head()
    values = record.model_dump(exclude={"verdict", "reason"})
    move = Move(
        action="promoted" if head else "first",
        actor="by hand",
        day=None,
        before=head.after if head else None,
        after=InForce(**values, cut_off_by="model"),
        challenger=None,
        why=record.reason,
        evidence_sha256=None,
        policy_sha256=stored_policy(loop.settings),
    )
    entry = ledger.append(move, head)
    named = record.model_copy(update={"ledger_entry": entry.number, "ledger_sha256": entry.sha256})
    metadata = {
        name: getattr(named, name)
        for name in ChampionRecord.model_fields
        if getattr(named, name) is not None
    }
    metadata |= {
        name: dg.MetadataValue.json(metadata[name].model_dump())
        for name in ("rule", "fallback")
        if name in metadata
    }
    loop.instance.report_runless_asset_event(dg.AssetMaterialization("champion", metadata=metadata))
    return named
