"""What `/metrics` says of a pod beyond its requests: drives, erasure sets, healing, peers.

Collected when it is asked for and from memory, so that it costs nothing between two scrapes and never waits for a
drive.  Every family is always there, with or without samples, so that an alert on it can be written before the
day it is needed; `docs/operations.md` has a row for each, and a test compares the two.

Labels are bounded by the configuration: pools, sets, positions, servers, states.  A pod tells of its *own* drives
and of *all* sets, as it sees them: a pod that is down is missed by the scraper, its drives by the sets of the
others.  `server` is the pod's name; `pod` would collide with what a scraper adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from holdfast_server.api.bucket_record import Quota
from holdfast_server.api.usage_book import Used
from holdfast_server.audit.outlet import OutletCounts
from holdfast_server.contract import geometry
from holdfast_server.contract.admin import PodState
from holdfast_server.contract.healing import DriveHealing
from holdfast_server.contract.health import ClusterHealth, DriveHealth, EncryptionHealth
from holdfast_server.contract.wording import filled_fraction
from holdfast_server.drives.disk_threads import CALL_BOUNDS_SECONDS, CallTimes
from holdfast_server.drives.port import DriveState
from holdfast_server.memory.budget import Budget
from holdfast_server.pod.tls_files import Validity
from holdfast_server.s3.expiry import Why

DRIVE_STATES = tuple(state.told for state in DriveState)
MAX_BUCKET_LABELS = 100
OTHER_BUCKETS = "_other"
"""No bucket can have that name."""
_DRIVE = ("pool", "set", "position", "volume")
_SET = ("pool", "set")


class PeerView(NamedTuple):
    """One other pod of the tenant."""

    server: str
    connected: bool
    epoch: int


class PodView(NamedTuple):
    """All that is told, at one moment."""

    state: PodState
    cluster: ClusterHealth
    peers: Sequence[PeerView]
    calls: Sequence[CallTimes]
    """Of the disk work of this pod's drives, in the order of `state.drives`."""
    budgets: Sequence[Budget]
    background_dropped: int
    """Courtesies (notes, read repairs) given up because too many were under way."""
    audit: Sequence[OutletCounts] = ()
    certificates: Mapping[str, Validity] = MappingProxyType({})
    """Those in force: of `clients`, of `peers`."""
    buckets: Sequence[tuple[str, Used, Quota | None]] = ()
    """What each holds and may hold, the greatest first; none unless the configuration asks for it."""


class PodCollector(Collector):
    """Register it in the pod's registry."""

    def __init__(self, view: Callable[[], PodView]) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the pod, which is being built."""
        return ()

    def collect(self) -> Iterable[Metric]:
        view = self._view()
        yield from _pod(view)
        yield from _drives(view.state.drives)
        yield from _calls(view)
        yield from _sets(view)
        yield from _queue(view.state.healing.drives)
        yield from _filling(view.state.healing.drives)
        yield from _scanner(view.state.healing.drives)
        yield from _bucket_walk(view.state.healing.drives)
        yield from _healing(view)
        yield from _memory(view)
        yield from _audit(view.audit)
        yield from _usage(view.buckets)
        yield from _certificates(view.certificates)
        yield from _encryption(view.cluster.encryption)


def _pod(view: PodView) -> Iterable[Metric]:
    state = view.state
    info = GaugeMetricFamily("holdfast_build_info", "1; the version is in the label.", labels=("version",))
    info.add_metric((state.version,), 1)
    yield info
    yield GaugeMetricFamily("holdfast_start_time_seconds", "When the pod began, Unix time.", state.started_ms / 1000)
    yield GaugeMetricFamily("holdfast_pool_map_epoch", "The epoch of the pools this pod works with.", state.epoch)
    newest = max((peer.epoch for peer in view.peers), default=0)
    yield GaugeMetricFamily(
        "holdfast_pool_map_newest_epoch", "The newest epoch that any pod has told of.", max(newest, state.epoch)
    )
    connected = GaugeMetricFamily("holdfast_peer_connected", "Whether the peer answers: 1 or 0.", labels=("server",))
    for peer in view.peers:
        connected.add_metric((peer.server,), peer.connected)
    yield connected


def _drives(drives: Sequence[DriveHealth]) -> Iterable[Metric]:
    full = _of_drives("holdfast_drive_full", "Whether it takes no new data for want of room: 1 or 0.")
    states = GaugeMetricFamily(
        "holdfast_drive_state", "1 for the state the drive is in, 0 for the others.", labels=(*_DRIVE, "state")
    )
    total = _of_drives("holdfast_drive_size_bytes", "Size of the drive's file system.")
    used = _of_drives("holdfast_drive_used_bytes", "Of it, what is in use.")
    available = _of_drives("holdfast_drive_available_bytes", "Of it, what this pod may still use.")
    for drive in drives:
        labels = _labels(drive)
        for state in DRIVE_STATES:
            states.add_metric((*labels, state), drive.state == state)
        full.add_metric(labels, drive.full)
        if drive.total_bytes:
            total.add_metric(labels, drive.total_bytes)
            used.add_metric(labels, drive.used_bytes)
            available.add_metric(labels, drive.available_bytes)
    return states, full, total, used, available


def _calls(view: PodView) -> Iterable[Metric]:
    seconds = HistogramMetricFamily(
        "holdfast_drive_call_seconds", "Disk work: blocks, batches of commits, pages, look-ups.", labels=_DRIVE
    )
    failed = _counter("holdfast_drive_io_errors", "Disk work that ended in an error of the operating system.")
    bounds = [*map(floatToGoString, CALL_BOUNDS_SECONDS), "+Inf"]
    for drive, calls in zip(view.state.drives, view.calls, strict=False):
        running = list(accumulate(calls.counts))
        seconds.add_metric(_labels(drive), list(zip(bounds, running, strict=True)), calls.seconds)
        failed.add_metric(_labels(drive), calls.failed)
    return seconds, failed


def _sets(view: PodView) -> Iterable[Metric]:
    size = _of_sets("holdfast_erasure_set_drives", "Drives the set is made of.")
    online = _of_sets("holdfast_erasure_set_drives_online", "Of them, those that answer; healing ones included.")
    healing = _of_sets("holdfast_erasure_set_drives_healing", "Of them, those being filled.")
    writable = _of_sets("holdfast_erasure_set_writable", "Whether the set takes writes: 1 or 0.")
    readable = _of_sets("holdfast_erasure_set_readable", "Whether the set answers reads: 1 or 0.")
    left = _of_sets("holdfast_erasure_set_losses_left", "Drives it may still lose while reads and writes go on.")
    for one in view.cluster.sets:
        labels = (one.pool, str(one.index))
        size.add_metric(labels, one.set_size)
        online.add_metric(labels, one.online)
        healing.add_metric(labels, one.healing)
        writable.add_metric(labels, one.writable)
        readable.add_metric(labels, one.readable)
        quorums = geometry.quorums(one.set_size, one.parity)
        left.add_metric(labels, geometry.losses_left(quorums, one.online - one.healing, one.healing))
    return size, online, healing, writable, readable, left


def _queue(drives: Sequence[DriveHealing]) -> Iterable[Metric]:
    length = _of_drives("holdfast_repair_queue_length", "Registers that some drive of the set has missed.")
    oldest = _of_drives("holdfast_repair_queue_oldest_seconds", "Age of the oldest of them; 0 where there is none.")
    for drive in drives:
        length.add_metric(_labels(drive), drive.queue_length)
        oldest.add_metric(_labels(drive), drive.oldest_entry_seconds)
    return length, oldest


def _filling(drives: Sequence[DriveHealing]) -> Iterable[Metric]:
    """Only drives that are being filled, or looked through after an absence, have samples."""
    ratio = _of_drives("holdfast_drive_filling_ratio", "How much of the drive is done, 0 to 1.", "replacement")
    done = _of_drives("holdfast_drive_filling_registers", "Registers compared in this pass.", "replacement")
    copied = _of_drives("holdfast_drive_filling_copied_bytes", "Bytes of shards brought to it.", "replacement")
    rate = _of_drives("holdfast_drive_filling_registers_per_second", "How fast it goes.", "replacement")
    left = _of_drives("holdfast_drive_filling_left_seconds", "Estimate of the time it still takes.", "replacement")
    for drive in drives:
        filling = drive.filling
        if filling is None:
            continue
        labels = (*_labels(drive), "true" if filling.replacement else "false")
        ratio.add_metric(labels, filled_fraction(filling))
        done.add_metric(labels, filling.registers_done)
        copied.add_metric(labels, filling.bytes_copied)
        rate.add_metric(labels, filling.registers_per_second)
        if filling.seconds_left is not None:
            left.add_metric(labels, filling.seconds_left)
    return ratio, done, copied, rate, left


def _scanner(drives: Sequence[DriveHealing]) -> Iterable[Metric]:
    position = _of_drives("holdfast_scanner_pass_ratio", "How much of the present pass is done, 0 to 1.")
    ended = _of_drives("holdfast_scanner_last_pass_timestamp_seconds", "When the last whole pass ended; 0: never.")
    took = _of_drives("holdfast_scanner_last_pass_seconds", "How long it took.")
    registers = _counter("holdfast_scanner_registers", "Registers looked at.")
    verified = _counter("holdfast_scanner_verified_bytes", "Bytes of shards read and compared with their hashes.")
    rotten = _counter("holdfast_scanner_rotten", "Shards found rotten or gone.")
    not_whole = _counter("holdfast_scanner_not_whole", "Registers found that some drive lacked.")
    orphans = _counter("holdfast_scanner_orphans_removed", "Shard files removed that no record named.")
    parts = _counter("holdfast_scanner_parts_removed", "Parts removed whose upload had ended.")
    for drive in drives:
        labels, scanner = _labels(drive), drive.scanner
        position.add_metric(labels, scanner.fraction)
        ended.add_metric(labels, scanner.last_pass_ended_ms / 1000)
        took.add_metric(labels, scanner.last_pass_seconds)
        registers.add_metric(labels, scanner.registers)
        verified.add_metric(labels, scanner.bytes_verified)
        rotten.add_metric(labels, scanner.rotten_found)
        not_whole.add_metric(labels, scanner.not_whole_found)
        orphans.add_metric(labels, scanner.orphans_removed)
        parts.add_metric(labels, scanner.parts_removed)
    return position, ended, took, registers, verified, rotten, not_whole, orphans, parts


def _bucket_walk(drives: Sequence[DriveHealing]) -> Iterable[Metric]:
    leads = _of_drives("holdfast_bucket_walk_active", "Whether this drive walks over its set's buckets now: 1 or 0.")
    position = _of_drives("holdfast_bucket_walk_pass_ratio", "How much of the present pass is done, 0 to 1.")
    ended = _of_drives(
        "holdfast_bucket_walk_last_pass_timestamp_seconds", "When this drive's last whole pass ended; 0: never."
    )
    registers = _counter("holdfast_bucket_walk_registers", "Records looked at.")
    expired = CounterMetricFamily(
        "holdfast_lifecycle_ended", "Versions and uploads that lifecycle rules ended.", labels=(*_DRIVE, "reason")
    )
    locked = _counter("holdfast_lifecycle_locked", "Times something was due and kept by a lock.")
    failed = _counter("holdfast_lifecycle_failures", "Times something was due and could not be ended then.")
    strays = _counter("holdfast_strays_removed", "Records removed that lay in deleted buckets.")
    unknown = _of_drives("holdfast_unknown_buckets", "Ids with records of buckets that are neither there nor deleted.")
    for drive in drives:
        labels, walk = _labels(drive), drive.buckets
        leads.add_metric(labels, walk.leads)
        position.add_metric(labels, walk.fraction)
        ended.add_metric(labels, walk.last_pass_ended_ms / 1000)
        registers.add_metric(labels, walk.registers)
        for why in Why:
            expired.add_metric((*labels, why.value), walk.expired.get(why.value, 0))
        locked.add_metric(labels, walk.locked)
        failed.add_metric(labels, walk.failed)
        strays.add_metric(labels, walk.strays_removed)
        unknown.add_metric(labels, walk.unknown_buckets)
    return leads, position, ended, registers, expired, locked, failed, strays, unknown


def _healing(view: PodView) -> Iterable[Metric]:
    healing = view.state.healing
    stuck = _of_sets("holdfast_heal_stuck_registers", "Registers that the drives can neither decide nor rebuild.")
    for one in healing.sets:
        stuck.add_metric((one.pool, str(one.index)), one.stuck)
    yield stuck
    for name, told, value in (
        ("repaired_registers", "Registers made whole again.", healing.registers_repaired),
        ("copies", "Records brought to a drive that lacked them, and shards rebuilt in place.", healing.copies_made),
        ("failures", "Attempts that ended in an error and are made again.", healing.failed),
        ("filled_drives", "Replacement drives that were filled.", healing.drives_filled),
        ("dropped_tombstones", "Deletes of which every drive could forget.", healing.tombstones_dropped),
        ("read_repairs", "Repairs begun because a read met something bad.", healing.read_repairs),
        ("read_repairs_dropped", "Of them, given up because too many waited.", healing.read_repairs_dropped),
    ):
        yield CounterMetricFamily(f"holdfast_heal_{name}", told, value)
    yield GaugeMetricFamily(
        "holdfast_heal_waiting_tombstones", "Deletes that not every drive could forget yet.", healing.tombstones_waiting
    )
    yield GaugeMetricFamily(
        "holdfast_heal_work_ratio", "How much of its time healing takes for itself now, 0 to 1.", healing.work_share
    )
    yield GaugeMetricFamily(
        "holdfast_heal_foreground_latency_seconds",
        "Of reads and writes of records, smoothed, as healing paces itself by it; 0: no requests lately.",
        healing.foreground_latency_seconds,
    )


def _memory(view: PodView) -> Iterable[Metric]:
    labels = ("budget",)
    capacity = GaugeMetricFamily("holdfast_budget_capacity", "Places or bytes that may be taken.", labels=labels)
    used = GaugeMetricFamily("holdfast_budget_used", "Of them, taken now.", labels=labels)
    waiting = GaugeMetricFamily("holdfast_budget_waiting", "Requests that wait for their turn.", labels=labels)
    refused = CounterMetricFamily(
        "holdfast_budget_refused", "Requests answered SlowDown for want of it.", labels=labels
    )
    evicted = CounterMetricFamily(
        "holdfast_budget_evicted", "Requests of clients too slow, ended while others waited.", labels=labels
    )
    for budget in view.budgets:
        name = (budget.name.replace(" ", "_"),)
        capacity.add_metric(name, budget.capacity)
        used.add_metric(name, budget.used)
        waiting.add_metric(name, budget.waiting)
        refused.add_metric(name, budget.refused)
        evicted.add_metric(name, budget.evicted)
    yield from (capacity, used, waiting, refused, evicted)
    yield CounterMetricFamily(
        "holdfast_background_dropped", "Notes and repairs given up because too many were under way.",
        view.background_dropped,
    )  # fmt: skip


def _certificates(certificates: Mapping[str, Validity]) -> Iterable[Metric]:
    label = ("certificate",)
    begins = GaugeMetricFamily(
        "holdfast_tls_certificate_start_timestamp_seconds", "When the certificate began to be valid.", labels=label
    )
    ends = GaugeMetricFamily(
        "holdfast_tls_certificate_expiry_timestamp_seconds", "When the certificate ends.", labels=label
    )
    for name, validity in certificates.items():
        begins.add_metric((name,), validity.begins)
        ends.add_metric((name,), validity.expires)
    return begins, ends


def _encryption(encryption: EncryptionHealth) -> Iterable[Metric]:
    yield GaugeMetricFamily("holdfast_encryption_keys", "Encryption keys in force.", len(encryption.fingerprints))
    yield GaugeMetricFamily(
        "holdfast_encryption_keys_refused",
        "Whether the key files as they are now cannot be taken over: 1 or 0.",
        bool(encryption.message),
    )


def _usage(buckets: Sequence[tuple[str, Used, Quota | None]]) -> Iterable[Metric]:
    """Told by pods that walk over buckets; each tells of the whole tenant.  Buckets beyond the greatest are one."""
    label = ("bucket",)
    size = GaugeMetricFamily("holdfast_bucket_usage_bytes", "Of all versions and of parts.", labels=label)
    objects = GaugeMetricFamily("holdfast_bucket_usage_objects", "Objects, as of the last count.", labels=label)
    versions = GaugeMetricFamily("holdfast_bucket_usage_versions", "Of all objects, with delete markers.", labels=label)
    quota = GaugeMetricFamily("holdfast_bucket_quota_bytes", "What it may hold; only of those with one.", labels=label)
    crowd = GaugeMetricFamily(
        "holdfast_bucket_quota_versions", "How many versions it may hold; only of those with a bound.", labels=label
    )
    rest = [0, 0, 0]
    for place, (name, used, limit) in enumerate(buckets):
        if place >= MAX_BUCKET_LABELS:
            rest = [rest[0] + used.size_bytes, rest[1] + used.objects, rest[2] + used.versions]
            continue
        size.add_metric((name,), used.size_bytes)
        objects.add_metric((name,), used.objects)
        versions.add_metric((name,), used.versions)
        if limit is not None and limit.size_bytes is not None:
            quota.add_metric((name,), limit.size_bytes)
        if limit is not None and limit.objects is not None:
            crowd.add_metric((name,), limit.objects)
    if len(buckets) > MAX_BUCKET_LABELS:
        for family, value in zip((size, objects, versions), rest, strict=True):
            family.add_metric((OTHER_BUCKETS,), value)
    return size, objects, versions, quota, crowd


def _audit(outlets: Sequence[OutletCounts]) -> Iterable[Metric]:
    labels = ("sink",)
    written = CounterMetricFamily("holdfast_audit_written", "Audit lines that were taken.", labels=labels)
    dropped = CounterMetricFamily("holdfast_audit_dropped", "Audit lines that are lost.", labels=labels)
    waiting = GaugeMetricFamily("holdfast_audit_waiting_bytes", "Audit lines on their way, in bytes.", labels=labels)
    for outlet in outlets:
        written.add_metric((outlet.sink,), outlet.written)
        dropped.add_metric((outlet.sink,), outlet.dropped)
        waiting.add_metric((outlet.sink,), outlet.waiting_bytes)
    return written, dropped, waiting


def _of_drives(name: str, told: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, told, labels=(*_DRIVE, *more))


def _of_sets(name: str, told: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, told, labels=_SET)


def _counter(name: str, told: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, told, labels=_DRIVE)


def _labels(drive: DriveHealth | DriveHealing) -> tuple[str, str, str, str]:
    return drive.pool, str(drive.set_index), str(drive.position), str(drive.volume)
