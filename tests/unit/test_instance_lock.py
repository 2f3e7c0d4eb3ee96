"""One daemon for a state directory: the second one is refused."""

import os

import pytest

from ecluse.errors import StateError
from ecluse.instance_lock import lock_state


def test_a_state_directory_is_taken_once_and_free_again_afterwards(tmp_path):
    first = lock_state(tmp_path / "state")
    try:
        with pytest.raises(StateError, match="another eclused uses"):
            lock_state(tmp_path / "state")
    finally:
        os.close(first)
    os.close(lock_state(tmp_path / "state"))


def test_a_file_in_its_place_is_said(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="can't be used"):
        lock_state(tmp_path / "state")
