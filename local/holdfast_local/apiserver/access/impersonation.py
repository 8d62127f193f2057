"""Impersonation: `kubectl --as`, for who may `impersonate` the user and each of the groups."""

from multidict import CIMultiDictProxy

from holdfast_local.apiserver.access.authorizer import Authorizer
from holdfast_local.apiserver.access.identity import AUTHENTICATED, User, account_of, user_from
from holdfast_local.apiserver.http.targets import Target

USER_HEADER = "Impersonate-User"
GROUP_HEADER = "Impersonate-Group"


def impersonated(user: User, headers: CIMultiDictProxy[str], authorizer: Authorizer) -> User:
    """The user that the request asks to act as; the user itself without such headers. Raises StatusError 403."""
    name = headers.get(USER_HEADER, "")
    if not name:
        return user
    groups = tuple(headers.getall(GROUP_HEADER, []))
    account = account_of(name)
    if account is not None:
        authorizer.require(user, Target("", "v1", "serviceaccounts", *account, "", "impersonate"))
    else:
        authorizer.require(user, Target("", "v1", "users", "", name, "", "impersonate"))
    for group in groups:
        if group != AUTHENTICATED:
            authorizer.require(user, Target("", "v1", "groups", "", group, "", "impersonate"))
    return user_from(name, groups)
