"""XML in: a small tree from expat, with everything dangerous refused.

DTDs, entities and deep nesting are refused and the size is bounded; namespaces are dropped, because clients
send S3's, none, or a wrong one.  What a document must contain is checked in `documents_in`.

Parsing holds the interpreter, on whichever thread it is done, and an element's attributes are taken in one go: so many
of them that they take seconds are refused before expat sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.parsers import expat

from holdfast_server.s3.errors import ERRORS, S3Error

MAX_DEPTH = 16
"""Levels of nesting accepted; S3's own documents have at most eight."""
MAX_ELEMENTS = 100_000
"""Elements and attributes accepted in one document; ten thousand parts with all their checksums are 50,000."""
MAX_ATTRIBUTES = 16
"""Of one element, declarations of namespaces among them; S3's own have two."""
_TOO_MANY_ATTRIBUTES = re.compile(
    rb"""<[^<>"']*+(?:(?:"[^"<]*+"|'[^'<]*+')[^<>"']*+){%d}""" % (MAX_ATTRIBUTES + 1)
).search
"""In bytes: expat takes no encoding in which these signs are other bytes, but for UTF-16, which is full of NUL."""


class Element:
    """One element: local name, the text directly in it, and its child elements in order."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.text = ""
        self.children: list[Element] = []

    def find(self, name: str) -> Element | None:
        """The first child of that name."""
        for child in self.children:
            if child.name == name:
                return child
        return None

    def all(self, name: str) -> Iterator[Element]:
        """Every child of that name, in order."""
        return (child for child in self.children if child.name == name)

    def value(self, name: str) -> str | None:
        """The text of the first child of that name, stripped; None where there is none."""
        child = self.find(name)
        return None if child is None else child.text.strip()


def _malformed(reason: str) -> S3Error:
    default = ERRORS["MalformedXML"][1]
    return S3Error("MalformedXML", f"{default} ({reason})")


class _TreeBuilder:
    """Collects expat's events into Elements and refuses what no S3 client sends."""

    def __init__(self, max_elements: int) -> None:
        self._max_elements = max_elements
        self.root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count(1 + len(attributes))
        if len(self._open) >= MAX_DEPTH:
            raise _malformed("nested too deeply")
        element = Element(name.rpartition(" ")[2], attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._texts.append([])

    def namespace(self, _prefix: str, _uri: str) -> None:
        self._count(1)

    def _count(self, more: int) -> None:
        self._elements += more
        if self._elements > self._max_elements:
            raise _malformed("too many elements")

    def text(self, data: str) -> None:
        if self._texts:
            self._texts[-1].append(data)

    def end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop())

    def doctype(self, *_arguments: object) -> None:
        raise _malformed("a document type declaration is not accepted")

    def entity(self, *_arguments: object) -> None:
        raise _malformed("entity declarations are not accepted")


def parse(body: bytes, max_size_bytes: int, max_elements: int = MAX_ELEMENTS) -> Element:
    """The document's root.  Raises MalformedXML for anything that is not one small, plain document."""
    if len(body) > max_size_bytes:
        raise _malformed(f"larger than {max_size_bytes} bytes")
    if b"\0" in body:
        raise _malformed("not in UTF-8")
    if _TOO_MANY_ATTRIBUTES(body):
        raise _malformed("too many attributes")
    builder = _TreeBuilder(max_elements)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.StartNamespaceDeclHandler = builder.namespace
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.EntityDeclHandler = builder.entity
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        # ValueError and LookupError: an encoding declared in the prolog that Python cannot decode.
        raise _malformed(str(error)) from error
    if builder.root is None:
        raise _malformed("no root element")
    return builder.root
