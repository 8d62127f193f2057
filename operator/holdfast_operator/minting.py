"""New keys from the system's source of randomness; the only place where secrets come into being."""

from __future__ import annotations

import base64
import secrets
import string
import uuid

from holdfast_operator.credentials import KeyPair, PeerIdentity
from holdfast_operator.gather import KeyMint
from holdfast_server.contract.encryption_keys import KEY_SIZE_BYTES

ACCESS_KEY_SIZE = 20
SECRET_KEY_SIZE = 40
PEER_KEY_SIZE_BYTES = 32

_ACCESS_ALPHABET = string.ascii_uppercase + string.digits
# No signs: the keys travel through shells, YAML and URLs.
_SECRET_ALPHABET = string.ascii_letters + string.digits


def mint_key_pair() -> KeyPair:
    return KeyPair(_random(_ACCESS_ALPHABET, ACCESS_KEY_SIZE), _random(_SECRET_ALPHABET, SECRET_KEY_SIZE))


def mint_peer_identity() -> PeerIdentity:
    return PeerIdentity(tenant_id=str(uuid.uuid4()), peer_key=secrets.token_hex(PEER_KEY_SIZE_BYTES))


def mint_encryption_key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_SIZE_BYTES)).decode()


def system_mint() -> KeyMint:
    return KeyMint(key_pair=mint_key_pair, peer_identity=mint_peer_identity, encryption_key=mint_encryption_key)


def _random(alphabet: str, size: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(size))
