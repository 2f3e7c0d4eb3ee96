"""The raw netlink helper: mixes are read again, errors are told in the kernel's words, sockets are
not mixed up.
"""

import errno
import struct

import pytest

from ecluse.errors import KernelError
from ecluse.kernel import netlink as nl
from ecluse.kernel import nf_tables_numbers as nf

pytestmark = pytest.mark.kernel


class Scripted:
    """A socket that answers what a test says."""

    def __init__(self, *datagrams):
        self.datagrams = list(datagrams)

    def send(self, _data):
        return 0

    def recvmsg(self, _size):
        return self.datagrams.pop(0), [], 0, None


def scripted(*datagrams):
    made = nl.NetlinkSocket(nl.NETLINK_NETFILTER)
    made.close()
    made.socket = Scripted(*datagrams)
    return made


def done(flags=0, sequence=1, code=0):
    return nl.message(nl.NLMSG_DONE, flags, sequence, struct.pack("=i", code))


def test_attributes_come_back_as_they_were_built():
    data = (
        nl.attribute(1, b"abc")
        + nl.text_attribute(2, "chain")
        + nl.attribute(0x8003, nl.attribute(4, b"\0\0\1\0"))
    )
    assert nl.attribute_map(data)[1] == b"abc"
    assert nl.text(nl.attribute_map(data)[2]) == "chain"
    assert nl.number(nl.attribute_map(nl.attribute_map(data)[3])[4]) == 256
    assert len(data) % 4 == 0


@pytest.mark.parametrize("walk", [nl.attributes, nl.messages])
def test_a_length_that_leads_nowhere_is_an_error_and_no_endless_loop(walk):
    with pytest.raises(OSError, match="shorter than its header"):
        list(walk(bytes(32)))


def test_an_interrupted_dump_is_read_to_its_end_and_refused():
    made = scripted(
        nl.message(99, 0, 1, b"one."),
        nl.message(99, nl.NLM_F_DUMP_INTR, 1, b"two."),
        nl.message(99, 0, 1, b"last") + done(),
    )
    seen = []
    with pytest.raises(nl.DumpInterruptedError):
        seen.extend(made.dump(1, b""))
    assert made.socket.datagrams == []


def test_an_interruption_at_the_very_end_counts():
    with pytest.raises(nl.DumpInterruptedError):
        list(scripted(nl.message(99, 0, 1, b"one.") + done(nl.NLM_F_DUMP_INTR)).dump(1, b""))


def test_answers_to_an_older_question_are_not_taken():
    made = scripted(nl.message(99, 0, 7, b"old."), nl.message(99, 0, 1, b"new.") + done())
    assert list(made.dump(1, b"")) == [b"new."]


def test_an_error_at_the_end_of_a_dump_is_an_error():
    with pytest.raises(OSError) as caught:
        list(scripted(nl.message(99, 0, 1, b"one.") + done(code=-errno.ENOMEM)).dump(1, b""))
    assert caught.value.errno == errno.ENOMEM


def test_consistently_asks_again_and_not_for_ever():
    calls = []

    def third_time():
        calls.append(1)
        if len(calls) < 3:
            raise nl.DumpInterruptedError
        return "whole"

    def never():
        calls.append(1)
        raise nl.DumpInterruptedError

    assert nl.retry_interrupted(third_time) == "whole"
    calls.clear()
    with pytest.raises(nl.DumpInterruptedError):
        nl.retry_interrupted(never)
    assert len(calls) == nl.TRIES


def test_an_error_says_what_was_being_done_and_whether_to_try_again():
    with pytest.raises(
        KernelError, match="could not read the moon: Operation not permitted"
    ) as caught:
        with nl.kernel_errors("read the moon"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
    assert (caught.value.retry, caught.value.hint) == (False, "run eclused as root")
    with pytest.raises(KernelError) as caught:
        with nl.kernel_errors("read the moon"):
            raise nl.DumpInterruptedError
    assert caught.value.retry


def test_the_kernel_says_more_than_a_number(namespace):
    with nl.NetlinkSocket(nl.NETLINK_NETFILTER) as made:
        body = nl.netfilter_header(nf.NFPROTO_INET)
        with pytest.raises(OSError) as caught:
            made.request(nl.netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETTABLE), body)
    assert caught.value.errno == errno.EINVAL
    with nl.NetlinkSocket(
        nl.NETLINK_NETFILTER
    ) as made:  # RTM_GETLINK's kernel speaks; here a policy error does
        body += nl.attribute(1, b"x" * 300 + b"\0")
        with pytest.raises(OSError, match=r"\(.+\)"):
            made.request(nl.netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETTABLE), body)


def test_a_socket_is_lent_again_unless_an_error_left_answers_in_it(namespace):
    sockets = nl.SocketPool(nl.NETLINK_NETFILTER)
    with sockets.borrow() as first:
        pass
    with pytest.raises(nl.DumpInterruptedError):
        with sockets.borrow() as second:
            raise nl.DumpInterruptedError
    with pytest.raises(ValueError):
        with sockets.borrow() as third:
            raise ValueError
    assert first is second is third
    assert third.socket.fileno() == -1
    with sockets.borrow() as fourth, sockets.borrow() as fifth:
        assert fourth is not fifth
    sockets.close()
    assert fourth.socket.fileno() == fifth.socket.fileno() == -1
