"""Who may talk to the API server: the person, the node and the operator, each with a token of its own.

The tokens are kept in the state folder, so that a kubeconfig copied elsewhere survives a restart.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from holdfast_local.run.state_directory import StateDirectory, write_private

OPERATOR_NAMESPACE = "holdfast-system"
OPERATOR_ACCOUNT = "holdfast-operator"
TOKEN_SIZE_BYTES = 24


@dataclass(frozen=True)
class Tokens:
    """Bearer tokens."""

    admin: str
    node: str
    operator: str

    def users(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Token → (user name, groups), as the API server wants it."""
        everyone = "system:authenticated"
        return {
            self.admin: ("admin", ("system:masters", everyone)),
            self.node: ("system:node:local", ("system:masters", "system:nodes", everyone)),
            self.operator: (
                f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}",
                ("system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_NAMESPACE}", everyone),
            ),
        }


def load_or_mint(state: StateDirectory) -> Tokens:
    """The cluster's tokens; new ones where none are readable."""
    try:
        stored = json.loads(state.tokens.read_text())
        return Tokens(str(stored["admin"]), str(stored["node"]), str(stored["operator"]))
    except (OSError, ValueError, KeyError, TypeError):
        tokens = Tokens(*(secrets.token_urlsafe(TOKEN_SIZE_BYTES) for _ in range(3)))
        write_private(
            state.tokens,
            json.dumps({"admin": tokens.admin, "node": tokens.node, "operator": tokens.operator}),
        )
        return tokens
