"""Every S3 error Holdfast answers with, in one table: code → HTTP status and default message.

Codes and messages are those of the S3 API reference ("Error responses"), because clients match on the
code and people search for the message.  Domain errors of other packages become S3 errors in `api/`.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.s3.xml_text import DECLARATION, escape_for_people

_BAD_REQUEST: dict[str, str] = {
    "AccessControlListNotSupported": "The bucket does not allow ACLs",
    "AuthorizationHeaderMalformed": "The authorization header you provided is invalid.",
    "AuthorizationQueryParametersError": "Query-string authentication parameters are invalid.",
    "BadRequest": "Bad Request",
    "BadDigest": "The Content-MD5 or checksum value that you specified did not match what the server received.",
    "EntityTooLarge": "Your proposed upload exceeds the maximum allowed object size.",
    "EntityTooSmall": "Your proposed upload is smaller than the minimum allowed object size.",
    "IllegalVersioningConfigurationException": "The versioning configuration specified in the request is invalid.",
    "IllegalLocationConstraintException": "The specified location constraint is not valid for this endpoint.",
    "IncompleteBody": "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    "InvalidArgument": "Invalid Argument",
    "InvalidBucketAclWithBlockPublicAccessError": ("Bucket cannot have public ACLs set with BlockPublicAccess enabled"),
    "InvalidBucketAclWithObjectOwnership": (
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
    ),
    "InvalidBucketName": "The specified bucket is not valid.",
    "InvalidBucketNamespace": "The name of the bucket is not of the namespace that was asked for.",
    "InvalidDigest": "The Content-MD5 or checksum value that you specified is not valid.",
    "InvalidEncryptionAlgorithmError": "The encryption request that you specified is not valid.",
    "InvalidLocationConstraint": "The specified location constraint is not valid.",
    "InvalidPart": (
        "One or more of the specified parts could not be found. The part may not have been uploaded, "
        "or the specified entity tag may not match the part's entity tag."
    ),
    "InvalidPartOrder": (
        "The list of parts was not in ascending order. The parts list must be specified in order by part number."
    ),
    "InvalidPolicyDocument": "The content of the form does not meet the conditions specified in the policy document.",
    "InvalidRedirectLocation": ("The website redirect location must have a prefix of 'http://' or 'https://' or '/'."),
    "InvalidRequest": "Invalid Request",
    "InvalidRetentionPeriod": "The retention period must be a positive number of days or years.",
    "InvalidStorageClass": "The storage class you specified is not valid.",
    "InvalidTag": "The tag provided was not a valid tag.",
    "InvalidToken": "The provided token is malformed or otherwise not valid.",
    "ExpiredToken": "The provided token has expired.",
    "InvalidURI": "Couldn't parse the specified URI.",
    "KMS.NotFoundException": "Invalid keyId",
    "KeyTooLongError": "Your key is too long.",
    "MalformedACLError": "The ACL that you provided was not well formed or did not validate against our schema.",
    "MalformedPOSTRequest": "The body of your POST request is not well-formed multipart/form-data.",
    "MalformedPolicy": "Policies must be valid JSON and the first byte must be '{'",
    "MalformedTrailerError": (
        "The request contained trailing data that was not well-formed or did not conform to our published schema."
    ),
    "MalformedXML": ("The XML you provided was not well-formed or did not validate against our published schema"),
    "MaxMessageLengthExceeded": "Your request was too large.",
    "MaxPostPreDataLengthExceededError": "Your POST request fields preceding the upload file were too large.",
    "MetadataTooLarge": "Your metadata headers exceed the maximum allowed metadata size.",
    "MissingRequestBodyError": "Request Body is empty",
    "MissingSecurityHeader": "Your request was missing a required header.",
    "RequestHeaderSectionTooLarge": "Your request header section exceeds the maximum allowed size.",
    "RequestTimeout": (
        "Your socket connection to the server was not read from or written to within the timeout period."
    ),
    "TooManyBuckets": "You have attempted to create more buckets than allowed.",
    "UnresolvableGrantByEmailAddress": "The email address that you provided does not match any account on record.",
    "UnexpectedContent": "This request does not support content.",
    "XAmzContentSHA256Mismatch": "The provided 'x-amz-content-sha256' header does not match what was computed.",
}

_FORBIDDEN: dict[str, str] = {
    "AccessDenied": "Access Denied",
    "AccessForbidden": "This CORS request is not allowed.",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "InvalidObjectState": "The operation is not valid for the object's storage class.",
    "QuotaExceeded": "The bucket may not hold more.",
    "RequestTimeTooSkewed": "The difference between the request time and the server's time is too large.",
    "SignatureDoesNotMatch": (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    ),
}

_NOT_FOUND: dict[str, str] = {
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchBucketPolicy": "The bucket policy does not exist",
    "NoSuchCORSConfiguration": "The CORS configuration does not exist",
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchLifecycleConfiguration": "The lifecycle configuration does not exist",
    "NoSuchObjectLockConfiguration": "The specified object does not have a ObjectLock configuration",
    "NoSuchPublicAccessBlockConfiguration": "The public access block configuration was not found",
    "NoSuchTagSet": "The TagSet does not exist",
    "NoSuchUpload": (
        "The specified multipart upload does not exist. The upload ID may be invalid, "
        "or the upload may have been aborted or completed."
    ),
    "NoSuchVersion": "The specified version does not exist.",
    "NoSuchWebsiteConfiguration": "The specified bucket does not have a website configuration",
    "ObjectLockConfigurationNotFoundError": "Object Lock configuration does not exist for this bucket",
    "OwnershipControlsNotFoundError": "The bucket ownership controls were not found",
    "ReplicationConfigurationNotFoundError": "The replication configuration was not found",
    "ServerSideEncryptionConfigurationNotFoundError": ("The server side encryption configuration was not found"),
}

_OTHER: dict[str, tuple[int, str]] = {
    "NotModified": (304, "Not Modified"),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "BucketAlreadyExists": (
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users of the "
        "system. Please select a different name and try again.",
    ),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": (409, "A conflicting operation occurred during the request. Please retry."),
    "InvalidBucketState": (409, "The request is not valid with the current state of the bucket."),
    "OperationAborted": (
        409,
        "A conflicting conditional operation is currently in progress against this resource. Please try again.",
    ),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "NotImplemented": (501, "A header or query you provided implies functionality that is not implemented"),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SlowDown": (503, "Please reduce your request rate."),
    "InsufficientStorage": (507, "The storage is full: no drive has room for this write."),
}

ERRORS: dict[str, tuple[int, str]] = {
    **{code: (400, message) for code, message in _BAD_REQUEST.items()},
    **{code: (403, message) for code, message in _FORBIDDEN.items()},
    **{code: (404, message) for code, message in _NOT_FOUND.items()},
    **_OTHER,
}
"""code → (HTTP status, default message).  Never changed at run time."""


class S3Error(Exception):
    """A request's failure as S3 names it.

    `code` must stand in `ERRORS`; `extra` become further elements of the XML (`Key`, `ArgumentName`, …),
    in the order given.
    """

    def __init__(self, code: str, message: str | None = None, **extra: object) -> None:
        status, default = ERRORS[code]
        self.code = code
        self.status = status
        self.message = default if message is None else message
        self.extra = extra
        self.headers: dict[str, str] = {}
        """Of the response, beside those every error has."""
        super().__init__(f"{code}: {self.message}")

    def with_headers(self, headers: Mapping[str, str]) -> S3Error:
        """Itself, to be answered with these headers too."""
        self.headers.update(headers)
        return self


def invalid_argument(message: str, name: str, value: str) -> S3Error:
    """Of a header or parameter."""
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


def error_xml(error: S3Error, resource: str, request_id: str, host_id: str = "") -> bytes:
    """The `<Error>` document; `resource` is the path asked for, as people would write it."""
    extra = "".join([f"<{name}>{escape_for_people(str(value))}</{name}>" for name, value in error.extra.items()])
    return (
        f"{DECLARATION}<Error><Code>{error.code}</Code><Message>{escape_for_people(error.message)}</Message>{extra}"
        f"<Resource>{escape_for_people(resource)}</Resource><RequestId>{escape_for_people(request_id)}</RequestId>"
        f"<HostId>{escape_for_people(host_id)}</HostId></Error>"
    ).encode()
