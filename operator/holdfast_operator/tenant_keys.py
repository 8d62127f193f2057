"""The keys of a tenant in one pass, and what can be wrong with the Secrets they come from.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from holdfast_operator.credentials import KeyPair
from holdfast_operator.key_book import KeyBook
from holdfast_operator.ledger import Ledger


class CredentialsFault(Exception):
    """Keys are missing, unusable or not ours; `reason` is fit for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TenantCredentials:
    """All keys of a tenant in one pass, with the ledger that lies beside them."""

    tenant_id: str
    ledger: Ledger
    book: KeyBook
    faults: tuple[CredentialsFault, ...] = ()
    user_faults: Mapping[str, str] = field(default_factory=dict)
    """User → why it has no keys, or not those that its Secret has."""
    left_alone: frozenset[str] = frozenset()
    """Secrets whose content is refused: whoever wrote them is told, and not overruled."""

    def with_fault(self, fault: CredentialsFault) -> TenantCredentials:
        return replace(self, faults=(*self.faults, fault))

    @property
    def root(self) -> KeyPair:
        """The pair that is announced."""
        return self.book.root.current

    @property
    def users(self) -> Mapping[str, KeyPair]:
        """User → the pair that is announced; those that have none are left out."""
        return {name: history.current for name, history in self.book.users.items()}

    def user_pairs(self, name: str) -> tuple[KeyPair, ...]:
        """All pairs that are valid for the user, latest first."""
        return self.book.users[name].accepted
