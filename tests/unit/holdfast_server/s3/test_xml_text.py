"""Text for XML is escaped, one by one or many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.xml_text import escape, escape_all

texts = (
    st.text(max_size=4) | st.text("ab /&<>\"'\r\n\t\x00\x7f\x85\ud800\ufffe", max_size=4) | st.text("ab /-", max_size=4)
)


@given(st.lists(texts, max_size=4))
def test_many_are_escaped_as_one_is(several):
    assert list(escape_all(several)) == [escape(text) for text in several]
