"""What the operator must remember of a tenant beyond the Tenant's own life, kept in the Secret `<t>-peer`.

Claims and the peer Secret outlive a deleted Tenant, and a Tenant of the same name takes them up again.  Then it
matters what had been decided: the tenant's id, each pool's geometry (frozen when its drives were formatted),
whether the drives *were* formatted (blank ones may never be formatted as new a second time: that would serve
emptiness in place of data), the pods' numbers in stamps (never given twice), and the epoch of the pool map.
It also names the users and buckets that the operator made, so that it can take back those and no others.

Invariants: pools are appended and never changed in geometry; one that requests go to is never removed, and one that was
taken out before leaves its name and its numbers, which are not given again; `first_node` ranges never overlap;
`formatted` and `epoch` only rise.  Pure: reading and writing the Secret happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from holdfast_operator.tenant.fields import Fault
from holdfast_operator.tenant.spec import PoolSpec, TenantSpec
from holdfast_server.contract import names
from holdfast_server.contract.config import ServerConfig

LEDGER_VERSION = 1


class LedgerError(ValueError):
    """The ledger is missing or unreadable.  The operator must not guess: it stops and says so."""


class PoolRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    name: str
    servers: int
    volumes_per_server: int
    set_size: int
    parity: int
    first_node: int
    readable_from_epoch: int
    writable_from_epoch: int
    formatted: bool = False


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    version: int = LEDGER_VERSION
    epoch: int = 1
    pools: tuple[PoolRecord, ...] = ()
    taken_out: tuple[str, ...] = ()
    """Names of pools that were left out while they were joining.  Pods may remember drives under them, which they would
    ask a new pool of that name for."""
    next_node: int = 0
    """All numbers below it have been given."""
    users: dict[str, tuple[str, ...]] = {}
    """Declared user → every access key that may exist for it in the store, written down before it is made."""
    buckets: dict[str, str] = {}
    """Declared bucket → the deletion policy last declared for it."""
    policies: tuple[str, ...] = ()
    """Policies that may exist in the store because a Tenant declared them."""
    accounts: tuple[str, ...] = ()
    """The same of accounts."""

    tls_stage: str = "Off"
    """How far the pods were told to use TLS: `tls.stages`."""

    encryption_keys: dict[str, str] = {}
    """Entry of the encryption Secret → fingerprint of its key, of all that have been there; empty where it is not
    known which it was."""

    def pool(self, name: str) -> PoolRecord | None:
        return next((pool for pool in self.pools if pool.name == name), None)

    @property
    def serving_pools(self) -> tuple[PoolRecord, ...]:
        """Pools that requests go to; one that is joining is not among them before it can bear it."""
        return tuple(pool for pool in self.pools if pool.readable_from_epoch <= self.epoch)

    @property
    def joining_pools(self) -> tuple[PoolRecord, ...]:
        """Pools that do not take writes yet."""
        return tuple(pool for pool in self.pools if pool.writable_from_epoch > self.epoch)

    @property
    def first_free_node(self) -> int:
        return max([self.next_node, *(pool.first_node + pool.servers for pool in self.pools)])


def decode_ledger(data: bytes) -> Ledger:
    """Raises LedgerError."""
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"the ledger cannot be read: {error}") from error
    if ledger.version != LEDGER_VERSION:
        raise LedgerError(f"the ledger has version {ledger.version}, this operator reads {LEDGER_VERSION}")
    return ledger


def encode_ledger(ledger: Ledger) -> bytes:
    document = msgspec.to_builtins(ledger)
    # Unknown to earlier operators, to which who uses none of it can still go back.
    if ledger.tls_stage == "Off":
        del document["tlsStage"]
    for field in ("accounts", "encryptionKeys", "takenOut", "nextNode"):
        if not document[field]:
            del document[field]
    return msgspec.json.encode(document, order="sorted")


def ledger_of_config(served: ServerConfig) -> Ledger:
    """The ledger as far as the pods' configuration tells it, which is all that data depend on.  It is applied after the
    ledger was, so it may lag behind by a step that nobody has acted on.  Users, buckets and policies of earlier lives
    are not in it; those that are declared are noted anew."""
    return Ledger(
        epoch=served.epoch,
        tls_stage=served.tls.stage if served.tls is not None else "Off",
        encryption_keys={"default.1": ""} if served.encryption is not None and served.encryption.keys_folder else {},
        pools=tuple(
            PoolRecord(
                name=pool.name,
                servers=pool.servers,
                volumes_per_server=pool.volumes_per_server,
                set_size=pool.erasure.set_size,
                parity=pool.erasure.parity,
                first_node=pool.first_node,
                readable_from_epoch=pool.readable_from_epoch,
                writable_from_epoch=pool.writable_from_epoch,
                formatted=not pool.formatting,
            )
            for pool in served.pools
        ),
    )


def never_began(ledger: Ledger) -> bool:
    """Whether pools were written down of which no drive was ever seen formatted."""
    return bool(ledger.pools) and not any(record.formatted for record in ledger.pools)


def without_pools(ledger: Ledger) -> Ledger:
    """To begin anew, where `never_began` holds and neither pods nor claims are left: there is no data, and nobody has
    made a stamp."""
    return msgspec.structs.replace(ledger, epoch=1, pools=())


def check_against_ledger(tenant: TenantSpec, ledger: Ledger) -> tuple[Fault, ...]:
    """Faults of a spec that contradicts what its data were written with."""
    return tuple(_contradictions(tenant, ledger))


def _contradictions(tenant: TenantSpec, ledger: Ledger) -> Iterable[Fault]:
    for index, pool in enumerate(tenant.pools):
        record = ledger.pool(pool.name)
        where = f"spec.pools[{index}]"
        if record is None:
            if pool.name in ledger.taken_out:
                yield Fault(f"{where}.name", f"a pool {pool.name!r} was taken out before: give this one another name")
            continue
        for field, now, then in (
            ("servers", pool.servers, record.servers),
            ("volumesPerServer", pool.volumes_per_server, record.volumes_per_server),
            ("erasure.setSize", pool.quorums.set_size, record.set_size),
            ("erasure.parity", pool.quorums.parity_shards, record.parity),
        ):
            if now != then:
                yield Fault(f"{where}.{field}", f"is {now}, but the pool's drives were laid out with {then}")
    if ledger.encryption_keys and tenant.encryption is None:
        yield Fault("spec.encryption", "cannot be left out: objects may be encrypted under its keys")
    declared = tenant.pool_names
    for record in ledger.serving_pools:
        if record.name not in declared:
            yield Fault("spec.pools", f"pool {record.name!r} holds data and cannot be left out")
    added = sum(pool.servers for pool in tenant.pools if ledger.pool(pool.name) is None)
    if ledger.first_free_node + added > names.MAX_PODS:
        yield Fault("spec.pools", f"pod numbers beyond {names.MAX_PODS - 1} would be needed")


def advance_pools(
    ledger: Ledger,
    pools: Sequence[PoolSpec],
    epochs: Mapping[tuple[str, int], int],
    formatted: Iterable[str],
    lingering: Collection[str] = (),
) -> Ledger:
    """The next ledger: `formatted` names pools whose every drive was seen formatted just now; `epochs` is what
    each pod (pool, ordinal) that knows every pool last said it works with.

    The first pools are readable and writable from epoch 1.  A later one first gets its pods and its drives, while
    no request goes near it; then an epoch makes it readable, and the next one writable.  An epoch is followed by
    another only when every pod reports it: a writer must never place a key where a slower pod would not look.
    One pool, or one group of pools declared together, joins at a time.

    While pods of pools that were taken out are `lingering` (there still, by pool) no epoch follows: they may
    coordinate, by an epoch that they never leave.
    """
    records = [
        msgspec.structs.replace(record, formatted=record.formatted or record.name in formatted)
        for record in ledger.pools
    ]
    epoch = ledger.epoch
    joining = [record for record in records if record.writable_from_epoch > epoch]
    if joining:
        ready = all(record.formatted for record in joining) and not lingering
        if ready and _everybody_reports(ledger, epochs):
            epoch += 1
    else:
        records += _new_records(ledger, pools)
    return msgspec.structs.replace(ledger, epoch=epoch, pools=tuple(records))


def left_out(ledger: Ledger, declared: Collection[str]) -> tuple[str, ...]:
    """Pools that may be taken out, and are no longer among the declared ones: no pod was told to look there."""
    serving = ledger.serving_pools
    return tuple(record.name for record in ledger.pools if record not in serving and record.name not in declared)


def take_out(ledger: Ledger, names: Collection[str]) -> Ledger:
    """The ledger without these of the `left_out`, for good."""
    if not names:
        return ledger
    return msgspec.structs.replace(
        ledger,
        pools=tuple(record for record in ledger.pools if record.name not in names),
        taken_out=(*ledger.taken_out, *names),
        next_node=ledger.first_free_node,
    )


def _new_records(ledger: Ledger, pools: Sequence[PoolSpec]) -> list[PoolRecord]:
    known, epoch, first_node = ledger.pools, ledger.epoch, ledger.first_free_node
    added: list[PoolRecord] = []
    for pool in pools:
        if ledger.pool(pool.name) is None:
            added.append(
                PoolRecord(
                    name=pool.name,
                    servers=pool.servers,
                    volumes_per_server=pool.volumes_per_server,
                    set_size=pool.quorums.set_size,
                    parity=pool.quorums.parity_shards,
                    first_node=first_node,
                    readable_from_epoch=epoch + 1 if known else epoch,
                    writable_from_epoch=epoch + 2 if known else epoch,
                )
            )
            first_node += pool.servers
    return added


def _everybody_reports(ledger: Ledger, epochs: Mapping[tuple[str, int], int]) -> bool:
    return all(
        epochs.get((record.name, ordinal), -1) >= ledger.epoch
        for record in ledger.pools
        for ordinal in range(record.servers)
    )
