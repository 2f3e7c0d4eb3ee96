"""The request that is sent before anything else loads."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ecluse.api.request_socket import json_text


@given(st.text())
def test_texts_are_written_as_json_dumps_writes_them(text):
    for one in (text, text + "\udc80\U0001f600"):
        assert json.loads(json_text(one)) == json.loads(json.dumps(one))
        json_text(one).encode("ascii")
