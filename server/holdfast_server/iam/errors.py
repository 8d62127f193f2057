"""What IAM and STS answer when they refuse, in the words of their own references."""

from __future__ import annotations

from holdfast_server.s3.errors import S3Error

_STATUS: dict[str, int] = {
    "AccessDenied": 403,
    "ConcurrentModification": 409,
    "DeleteConflict": 409,
    "EntityAlreadyExists": 409,
    "ExpiredToken": 403,
    "IncompleteSignature": 400,
    "InvalidAction": 400,
    "InvalidClientTokenId": 403,
    "InvalidInput": 400,
    "LimitExceeded": 409,
    "MalformedPolicyDocument": 400,
    "MalformedQueryString": 400,
    "MissingAuthenticationToken": 403,
    "NoSuchEntity": 404,
    "PolicyNotAttachable": 400,
    "RequestEntityTooLarge": 413,
    "ServiceFailure": 500,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "Throttling": 503,
    "UnmodifiableEntity": 400,
    "ValidationError": 400,
}
_FROM_S3 = {
    "AccessDenied": "AccessDenied",
    "AuthorizationHeaderMalformed": "IncompleteSignature",
    "ExpiredToken": "ExpiredToken",
    "InvalidAccessKeyId": "InvalidClientTokenId",
    "InvalidToken": "InvalidClientTokenId",
    "MaxMessageLengthExceeded": "RequestEntityTooLarge",
    "RequestTimeTooSkewed": "SignatureDoesNotMatch",
    "SignatureDoesNotMatch": "SignatureDoesNotMatch",
    "InsufficientStorage": "ServiceUnavailable",
}
_MESSAGES = {"InvalidClientTokenId": "The security token included in the request is invalid."}


class IamError(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.status = _STATUS[code]
        self.message = message
        super().__init__(f"{code}: {message}")


def from_s3(error: S3Error) -> IamError:
    """What everything beneath raises, in IAM's words."""
    if error.code == "SlowDown":
        return IamError("Throttling", error.message)
    code = _FROM_S3.get(error.code)
    if code is None:
        code = "ValidationError" if error.status < 500 else "ServiceUnavailable"
        code = "ServiceFailure" if error.status == 500 else code
    return IamError(code, _MESSAGES.get(code, error.message))


def no_such(kind: str, name: str) -> IamError:
    return IamError("NoSuchEntity", f"The {kind} with name {name} cannot be found.")
