"""Every reason that a condition can have is what somebody looks for in docs/operations.md at three in the morning."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]
_NAME = r"\"([A-Z][A-Za-z]+)\""
_PLACES = (
    rf"Finding\(\s*{_NAME},\s*\w+,\s*(?P<reason>\"[A-Z][A-Za-z]+\")",
    r"(?:Trouble|CredentialsFault|PairUnusable|TlsFault)\(\s*(?P<reason>\"[A-Z][A-Za-z]+\")",
    r"trouble=\(\s*(?P<reason>\"[A-Z][A-Za-z]+\")",
    r"EncryptionStep\([\w, ]+\(\s*(?P<reason>\"[A-Z][A-Za-z]+\")",
    r"^[A-Z_, ]+ = (?P<reason>\"(?:PassFails|Switching|KeysLost)\")",
)


def test_every_reason_is_in_the_document() -> None:
    sources = [path.read_text() for path in sorted((ROOT / "operator" / "holdfast_operator").rglob("*.py"))]
    reasons = {
        found["reason"].strip('"') for text in sources for place in _PLACES for found in re.finditer(place, text, re.M)
    }
    assert {"NoPodReady", "PeerSecretLost", "KeyMismatch", "SecretNotOurs", "PassFails", "KeysInvalid"} <= reasons
    document = (ROOT / "docs" / "operations.md").read_text()
    assert sorted(reason for reason in reasons if f"`{reason}`" not in document) == []
