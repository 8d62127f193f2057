"""Tags of objects and buckets: the document, the `x-amz-tagging` header, what S3 allows in them.

One set of rules for every door a tag can come in by: at most ten of an object and fifty of a bucket, each key once,
keys to 128 and values to 256 characters, of letters, digits, blanks and `+ - = . _ : / @`, no key in AWS's own `aws:`.
Kept with an object as one header value (`encode_tags`), in the order the client gave.  Pure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from urllib.parse import urlencode

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import percent_decode
from holdfast_server.s3.xml_text import escape
from holdfast_server.s3.xml_tree import Element, parse

TAGGING_HEADER = "x-amz-tagging"
MAX_OBJECT_TAGS = 10
MAX_BUCKET_TAGS = 50
MAX_KEY_LENGTH = 128
MAX_VALUE_LENGTH = 256
MAX_TAGGING_SIZE_BYTES = 128 << 10
"""Fifty tags of full length, each character escaped."""
MAX_HEADER_LENGTH = 16 << 10

_ALLOWED_MARKS = frozenset("+-=._:/@")

Tags = dict[str, str]


def parse_tagging(body: bytes, most: int) -> Tags:
    """The tags of a `Tagging` document, in order.  Raises MalformedXML, InvalidTag."""
    root = parse(body, MAX_TAGGING_SIZE_BYTES)
    sets = list(root.all("TagSet"))
    if root.name != "Tagging" or len(sets) != 1:
        raise S3Error("MalformedXML")
    return parse_tags(sets[0], most)


def parse_tags(parent: Element, most: int) -> Tags:
    """The tags that are the children of an element, in order.  Raises MalformedXML, InvalidTag."""
    pairs = []
    for element in parent.children:
        key, value = element.find("Key"), element.find("Value")
        if element.name != "Tag" or key is None or value is None:
            raise S3Error("MalformedXML")
        pairs.append((_text(key), _text(value)))
    return check_tags(pairs, most)


def _text(element: Element) -> str:
    if element.children:
        raise S3Error("MalformedXML")
    return element.text


def parse_tagging_header(text: str) -> Tags:
    """The tags of an `x-amz-tagging` header: `key=value&key=value`, percent-encoded.  Raises InvalidArgument,
    InvalidTag."""
    malformed = S3Error(
        "InvalidArgument",
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag "
        "name duplicates.",
        ArgumentName=TAGGING_HEADER,
        ArgumentValue=text,
    )
    if len(text) > MAX_HEADER_LENGTH:
        raise malformed
    pairs = []
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if not name:
            raise malformed
        try:
            pairs.append((percent_decode(name.replace("+", " ")), percent_decode(value.replace("+", " "))))
        except S3Error as error:
            raise malformed from error
    if len({key for key, _ in pairs}) != len(pairs):
        raise malformed
    return check_tags(sorted(pairs), MAX_OBJECT_TAGS)


def check_tags(pairs: list[tuple[str, str]], most: int) -> Tags:
    """The pairs as a mapping, if S3 allows them.  Raises InvalidTag."""
    if len(pairs) > most:
        kind = "Object" if most == MAX_OBJECT_TAGS else "Bucket"
        raise S3Error("InvalidTag", f"{kind} tags cannot be greater than {most}")
    tags: Tags = {}
    for key, value in pairs:
        if not 1 <= len(key) <= MAX_KEY_LENGTH or not all(map(_allowed, key)):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if key.lower().startswith("aws:"):
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", TagKey=key)
        if len(value) > MAX_VALUE_LENGTH or not all(map(_allowed, value)):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key, TagValue=value)
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=key)
        tags[key] = value
    return tags


def _allowed(character: str) -> bool:
    """Letters with their marks, digits, blanks, and a few signs."""
    if character.isascii():
        return character.isalnum() or character == " " or character in _ALLOWED_MARKS
    return unicodedata.category(character)[0] in "LMNZ"


def encode_tags(tags: Mapping[str, str]) -> str:
    """As one header value."""
    return urlencode(tags)


def decode_tags(text: str) -> Tags:
    """What `encode_tags` was given."""
    pairs = [part.partition("=") for part in text.split("&") if part]
    return {percent_decode(name.replace("+", " ")): percent_decode(value.replace("+", " ")) for name, _, value in pairs}


def tagging_xml(tags: Mapping[str, str]) -> bytes:
    """GetObjectTagging, GetBucketTagging."""
    return document("Tagging", f"<TagSet>{tag_rows(tags)}</TagSet>")


def tag_rows(tags: Mapping[str, str]) -> str:
    return "".join(
        [f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags.items()]
    )
