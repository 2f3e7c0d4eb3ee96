"""Connections that the kernel expects: FTP's data and SIP's media, through the site's NAT."""

import re
import select
import socket
import threading

from .links import plain
from .place import HOST, KEPT, Place
from .traffic import inside_of

FTP, SIP, DATA = 21, 5060, 50002
_ANSWERS = 30.0  # seconds for what must come
_RULES = """
table ip site {
  ct helper files { type "ftp" protocol tcp; }
  ct helper calls { type "sip" protocol udp; }
  chain helped { type filter hook prerouting priority filter;
    tcp dport 21 ct helper set "files"
    udp dport 5060 ct helper set "calls"
  }
  chain postrouting { type nat hook postrouting priority srcnat;
    oifname "wan0" masquerade
  }
}
"""


def helpers(place: Place) -> None:
    """The site masquerades, and has the kernel read FTP and SIP."""
    plain(place)
    place.sh("gw", "modprobe nf_nat_ftp; modprobe nf_nat_sip")
    (place.folder / "site.nft").write_text(_RULES)
    place.sh("gw", f"nft -f {place.folder}/site.nft")
    with inside_of(place.namespace("out")):
        files = socket.create_server((KEPT[4], FTP))
        calls = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        calls.bind((KEPT[4], SIP))
        media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        media.bind((KEPT[4], DATA))
    space = place.namespace("out")
    threading.Thread(target=_serve_files, args=(files, space), daemon=True).start()
    threading.Thread(target=_serve_calls, args=(calls, media), daemon=True).start()


def _serve_files(listener: socket.socket, space: str) -> None:
    """Call back whom `PORT` names: active FTP."""
    while True:
        caller, _ = listener.accept()
        with caller:
            *address, high, low = re.search(rb"PORT ([\d,]+)", caller.recv(200))[1].split(b",")
            with inside_of(space):
                data = socket.create_connection(
                    (b".".join(address).decode(), int(high) * 256 + int(low)),
                    timeout=_ANSWERS,
                    source_address=(KEPT[4], 0),
                )
            data.sendall(b"file")
            data.close()


def _serve_calls(calls: socket.socket, media: socket.socket) -> None:
    """Send media where a call's own text says."""
    while True:
        text = calls.recv(2000).decode()
        where = re.search(r"c=IN IP4 ([\d.]+)", text)[1], int(re.search(r"m=audio (\d+)", text)[1])
        media.sendto(b"voice", where)


def data_and_media_come(place: Place) -> None:
    """Fetch a file by active FTP and call somebody; the outside opens what carries both."""
    with inside_of(place.namespace("in")):
        listener = socket.create_server((HOST[4], DATA))
        caller = socket.create_connection((KEPT[4], FTP), timeout=_ANSWERS)
    listener.settimeout(_ANSWERS)
    with listener, caller:
        numbers = HOST[4].replace(".", ",")
        caller.sendall(f"PORT {numbers},{DATA // 256},{DATA % 256}\r\n".encode())
        data, _ = listener.accept()
        with data:
            data.settimeout(_ANSWERS)
            if data.recv(100) != b"file":
                raise RuntimeError("no file")
    with inside_of(place.namespace("in")):
        phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    phone.bind((HOST[4], SIP))
    ear.bind((HOST[4], DATA))
    with phone, ear:
        for _ in range(int(_ANSWERS)):
            phone.sendto(_invite().encode(), (KEPT[4], SIP))
            if select.select([ear], [], [], 1.0)[0] and ear.recv(100) == b"voice":
                return
    raise RuntimeError("no voice")


def _invite() -> str:
    me, you = HOST[4], KEPT[4]
    body = (
        f"v=0\r\no=a 1 1 IN IP4 {me}\r\ns=-\r\nc=IN IP4 {me}\r\nt=0 0\r\n"
        f"m=audio {DATA} RTP/AVP 8\r\n"
    )
    return (
        f"INVITE sip:b@{you} SIP/2.0\r\nVia: SIP/2.0/UDP {me}:{SIP};branch=z9hG4bK1\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:a@{me}>;tag=1\r\nTo: <sip:b@{you}>\r\n"
        f"Call-ID: 1@{me}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{me}:{SIP}>\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
