"""What the operator must remember of a tenant beyond the Tenant's own life, kept in the Secret `<t>-peer`.

Claims and the peer Secret outlive a deleted Tenant, and a Tenant of the same name takes them up again.  Then it
matters what had been decided: the tenant's id, each pool's geometry (frozen when its drives were formatted),
whether the drives *were* formatted (blank ones may never be formatted as new a second time: that would serve
emptiness in place of data), the pods' numbers in stamps (never given twice), and the epoch of the pool map.
It also names the users and buckets that the operator made, so that it can take back those and no others.

Invariants: pools are appended, never changed in geometry or removed; `first_node` ranges never overlap;
`formatted` and `epoch` only rise.  Pure: reading and writing the Secret happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    if ledger.tls_stage == "Off":
        # Unknown to the operator before; who uses no TLS can still go back to it.
        del document["tlsStage"]
    if not ledger.accounts:
        del document["accounts"]
    if not ledger.encryption_keys:
        del document["encryptionKeys"]
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


def check_against_ledger(tenant: TenantSpec, ledger: Ledger) -> tuple[Fault, ...]:
    """Faults of a spec that contradicts what its data were written with."""
    return tuple(_contradictions(tenant, ledger))


def _contradictions(tenant: TenantSpec, ledger: Ledger) -> Iterable[Fault]:
    for index, pool in enumerate(tenant.pools):
        record = ledger.pool(pool.name)
        if record is None:
            continue
        where = f"spec.pools[{index}]"
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
    declared = {pool.name for pool in tenant.pools}
    for record in ledger.pools:
        if record.name not in declared:
            yield Fault("spec.pools", f"pool {record.name!r} holds data and cannot be left out")
    first_free = _first_free_node(ledger.pools)
    added = sum(pool.servers for pool in tenant.pools if ledger.pool(pool.name) is None)
    if first_free + added > names.MAX_PODS:
        yield Fault("spec.pools", f"pod numbers beyond {names.MAX_PODS - 1} would be needed")


def advance_pools(
    ledger: Ledger,
    pools: Sequence[PoolSpec],
    epochs: Mapping[tuple[str, int], int],
    formatted: Iterable[str],
) -> Ledger:
    """The next ledger: `formatted` names pools whose every drive was seen formatted just now; `epochs` is what
    each pod (pool, ordinal) that knows every pool last said it works with.

    The first pools are readable and writable from epoch 1.  A later one first gets its pods and its drives, while
    no request goes near it; then an epoch makes it readable, and the next one writable.  An epoch is followed by
    another only when every pod reports it: a writer must never place a key where a slower pod would not look.
    One pool, or one group of pools declared together, joins at a time.
    """
    records = [
        msgspec.structs.replace(record, formatted=record.formatted or record.name in formatted)
        for record in ledger.pools
    ]
    epoch = ledger.epoch
    joining = [record for record in records if record.writable_from_epoch > epoch]
    if joining:
        if all(record.formatted for record in joining) and _everybody_reports(ledger, epochs):
            epoch += 1
    else:
        records += _new_records(records, pools, epoch)
    return msgspec.structs.replace(ledger, epoch=epoch, pools=tuple(records))


def _new_records(known: Sequence[PoolRecord], pools: Sequence[PoolSpec], epoch: int) -> list[PoolRecord]:
    names_known = {record.name for record in known}
    added: list[PoolRecord] = []
    for pool in pools:
        if pool.name not in names_known:
            added.append(
                PoolRecord(
                    name=pool.name,
                    servers=pool.servers,
                    volumes_per_server=pool.volumes_per_server,
                    set_size=pool.quorums.set_size,
                    parity=pool.quorums.parity_shards,
                    first_node=_first_free_node([*known, *added]),
                    readable_from_epoch=epoch + 1 if known else epoch,
                    writable_from_epoch=epoch + 2 if known else epoch,
                )
            )
    return added


def _everybody_reports(ledger: Ledger, epochs: Mapping[tuple[str, int], int]) -> bool:
    return all(
        epochs.get((record.name, ordinal), -1) >= ledger.epoch
        for record in ledger.pools
        for ordinal in range(record.servers)
    )


def _first_free_node(records: Iterable[PoolRecord]) -> int:
    return max((record.first_node + record.servers for record in records), default=0)
