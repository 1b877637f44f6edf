"""Commands that change the champion: rollback, cut-off, and the record of a changed policy.

Every command writes in the same order: the ledger, which is authoritative; MLflow's alias; the
materialization of `champion`, which the API follows. A process that is killed between two steps
leaves either the old or the new champion, whole, in each place; the next run of `champion` aligns
them. Of two machines that move the champion at the same time one gets the ledger's next entry, and
the other decides again; whoever wrote the alias and the asset last repeats that until the ledger
has no later entry. Metadata and their comparison belong in `champion_records`.
"""

import getpass
import logging
import socket

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.champion_records import (
    DATA_VERSION,
    agreement,
    champion_metadata,
    describe_versions,
    in_force_from,
    policy_metadata,
    registry_of,
    verify,
)
from creditrisk_assets.governance.ledger import (
    Action,
    Entry,
    InForce,
    Ledger,
    Move,
    lock_champion,
    version_before,
)
from creditrisk_assets.policy import Policy
from creditrisk_assets.scoring.bundle import Bundle, BundleError
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import replacing

log = logging.getLogger(__name__)


class MoveRefused(RuntimeError):
    """The command is refused; the message gives the reason and the valid values."""


def rollback(
    instance: dg.DagsterInstance, settings: Settings, version: str | None, why: str
) -> Entry:
    """Put an earlier champion in force again.

    Args:
        instance: where `champion` is recorded.
        settings: where ledger and MLflow are.
        version: version number; by default the champion before the present one.
        why: reason for the ledger.

    Raises:
        MoveRefused: if there is no such former champion, it is in force already, or its bundle
            cannot be verified.
        LedgerError: if the ledger's chain is broken.
    """
    with lock_champion(settings.champion_lock):
        entries = _entries(settings)
        now = entries[-1].after
        former = {entry.after.model_version: entry.after for entry in entries}
        target = former.get(version) if version is not None else version_before(entries)
        valid = (
            ", ".join(sorted(set(former) - {now.model_version}, key=int))
            or "none, there was no other champion"
        )
        if target is None or target.model_version == now.model_version:
            requested = f"version {version}" if version is not None else "the champion before"
            raise MoveRefused(f"{requested} cannot be rolled back to; valid: {valid}")
        registered = registry_of(settings).version(target.model_version)
        bundle = _load_verified(target, settings)
        after = in_force_from(registered, bundle, now)
        return _record_move(instance, settings, "rolled_back", entries, after, bundle, why)


def set_cut_off(
    instance: dg.DagsterInstance,
    settings: Settings,
    cut_off: float | None,
    why: str,
    *,
    pin: bool = False,
) -> Entry:
    """Set another cut-off for the same model, or hand the one in force to the policy.

    Args:
        instance: where `champion` is recorded.
        settings: where ledger and MLflow are.
        cut_off: PD from which a customer is refused; None for the model's own. The cut-off in
            force leaves the rule and its reference profile unchanged.
        why: reason for the ledger.
        pin: take the cut-off in force, so that promotions do not change it; decisions stay the
            same.

    Raises:
        MoveRefused: if there is no champion, no customer would be approved, or the cut-off is
            already in force.
        LedgerError: if the ledger's chain is broken.
    """
    from creditrisk_assets.governance.policy import rule_of

    with lock_champion(settings.champion_lock):
        entries = _entries(settings)
        now = entries[-1].after
        bundle = _load_verified(now, settings)
        cut_off = now.rule.cut_off if pin else cut_off
        try:
            rule = now.rule if cut_off == now.rule.cut_off else rule_of(bundle, cut_off)
        except ValueError as error:
            raise MoveRefused(str(error)) from error
        after = now.model_copy(
            update={"rule": rule, "cut_off_by": "model" if cut_off is None else "policy"}
        )
        if after == now:
            raise MoveRefused(
                f"cut-off {rule.cut_off} is in force already, set by {now.cut_off_by}"
            )
        return _record_move(instance, settings, "cut_off", entries, after, bundle, why)


def stored_policy(settings: Settings) -> str:
    """Store the policy and return its hash."""
    digest = settings.policy.sha256
    file = settings.policies / f"{digest}.toml"
    if not file.exists():
        with replacing(file) as written:
            written.write(settings.policy.toml().encode())
    return digest


def record_policy(instance: dg.DagsterInstance, settings: Settings) -> Entry | None:
    """Record a changed policy in the ledger.

    Returns:
        The entry; None if the policy is the recorded one, or before the first champion.

    Raises:
        LedgerError: if the ledger's chain is broken, or another process appended meanwhile.
        PolicyError: if the recorded policy cannot be read.
    """
    head = Ledger(settings.ledger).head()
    if head is None or head.policy_sha256 == settings.policy.sha256:
        return None
    with lock_champion(settings.champion_lock):
        entries = _entries(settings)
        earlier = Policy.read(settings.policies / f"{entries[-1].policy_sha256}.toml")
        changes = settings.policy.changes(earlier)
        if not changes:
            return None
        now = entries[-1].after
        bundle = BundleStore(settings.data_dir).load(now.bundle_sha256)
        why = f"the policy changed: {changes}"
        return _record_move(instance, settings, "policy", entries, now, bundle, why)


def actor_by_hand(settings: Settings) -> str:
    """The actor of commands that a person runs, as the ledger records it."""
    return settings.actor or f"{getpass.getuser()}@{socket.gethostname()}"


def _entries(settings: Settings) -> list[Entry]:
    entries = Ledger(settings.ledger).entries()
    if not entries:
        raise MoveRefused("there has been no champion yet; run make train")
    return entries


def _record_move(
    instance: dg.DagsterInstance,
    settings: Settings,
    action: Action,
    entries: list[Entry],
    after: InForce,
    bundle: Bundle,
    why: str,
) -> Entry:
    head = entries[-1]
    move = Move(
        action=action,
        actor=actor_by_hand(settings),
        day=event_log.day_of_data(instance),
        before=head.after,
        after=after,
        challenger=None,
        why=why,
        evidence_sha256=None,
        policy_sha256=stored_policy(settings),
    )
    entry = Ledger(settings.ledger).append(move, head)
    _put_in_force(instance, settings, after, bundle, [*entries, entry])
    follow_ledger(instance, settings, entry)
    agrees = agreement(verify(instance, settings, every_version=False))
    # The UI would otherwise show the check as missing for this champion.
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=event_log.CHAMPION,
            check_name=str(agrees.check_name),
            passed=agrees.passed,
            metadata=agrees.metadata,
            blocking=True,
        )
    )
    return entry


def follow_ledger(instance: dg.DagsterInstance, settings: Settings, written: Entry) -> None:
    """Write alias and asset again while another machine has moved the champion meanwhile.

    Args:
        instance: where `champion` is recorded.
        settings: where ledger and MLflow are.
        written: the entry that alias and asset name now.
    """
    while (head := Ledger(settings.ledger).head()) is not None and head.number > written.number:
        entries = _entries(settings)
        written = entries[-1]
        bundle = BundleStore(settings.data_dir).load(written.after.bundle_sha256)
        _put_in_force(instance, settings, written.after, bundle, entries)


def align(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Let alias and asset name what the ledger has in force, as after the restoration of a store
    whose champion was moved during its backup, or with a new MLflow.

    Raises:
        MoveRefused: if there has been no champion.
        LedgerError: if the ledger's chain is broken.
    """
    with lock_champion(settings.champion_lock):
        entries = _entries(settings)
        head, record = entries[-1], event_log.champion_in_force(instance)
        if record is not None and record.ledger_entry == head.number:
            registry_of(settings).set_champion(head.after.model_version)
            return
        bundle = BundleStore(settings.data_dir).load(head.after.bundle_sha256)
        _put_in_force(instance, settings, head.after, bundle, entries)


def _put_in_force(
    instance: dg.DagsterInstance,
    settings: Settings,
    after: InForce,
    bundle: Bundle,
    entries: list[Entry],
) -> None:
    """Set the alias, and materialize `champion` as the last entry has it."""
    registry, entry = registry_of(settings), entries[-1]
    registry.set_champion(after.model_version)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            event_log.CHAMPION,
            description=entry.why,
            metadata={
                **champion_metadata(registry, after, bundle, entry.action, entry.why, entries),
                **policy_metadata(after, bundle, settings),
            },
            tags={"dagster/data_version": DATA_VERSION},
        )
    )
    if problem := describe_versions(settings, entries):
        log.warning("the descriptions in MLflow were not written: %s", problem)


def _load_verified(in_force: InForce, settings: Settings) -> Bundle:
    try:
        bundle = BundleStore(settings.data_dir).load(in_force.bundle_sha256)
        bundle.require_fits(settings.portfolio)
    except BundleError as error:
        raise MoveRefused(
            f"version {in_force.model_version} cannot be put in force: {error}"
        ) from error
    return bundle
