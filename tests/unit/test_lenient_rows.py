"""Rows of others: one that cannot be parsed is counted and hides no other."""

import pytest

from ecluse.lenient_rows import PARSE_ERRORS, parse_rows


def test_good_rows_come_in_order_and_bad_ones_are_counted():
    assert parse_rows(["1", "x", "3", None], int) == ([1, 3], 2)
    assert parse_rows([], int) == ([], 0)


@pytest.mark.parametrize("error", PARSE_ERRORS)
def test_whatever_parsing_raises_is_one_bad_row(error):
    def parse(_):
        raise error

    assert parse_rows([1], parse) == ([], 1)


def test_running_out_of_memory_and_faults_of_the_source_are_raised():
    def parse(_):
        raise MemoryError

    with pytest.raises(MemoryError):
        parse_rows([1], parse)
    with pytest.raises(ZeroDivisionError):
        parse_rows((1 // number for number in (1, 0)), str)
