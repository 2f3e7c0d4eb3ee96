"""Each mistake a person can make in the files gives its own line, column and words."""

import os

import pytest

from ecluse.config import load_policy, read_directory
from ecluse.errors import ConfigError
from ecluse.faults import Fault


def faults(files):
    """What load_policy says, each as `file:line:column: text` with the directory left out."""
    with pytest.raises(ConfigError) as caught:
        load_policy(files.path)
    return [str(fault).replace(f"{files.path}/", "") for fault in caught.value.faults]


def test_the_sample_itself_is_right(files):
    assert [s.name for s in load_policy(files.path).services] == ["laboratory"]


UNBOUNDED = "'unbounded: true' beside it"
ADDRESS = "an address or a prefix such as 10.10.4.7, 10.10.0.0/16 or 2001:db8:10::/48"
NAME = "1 to 48 of a-z, 0-9 and '-', a letter first (a title may say more)"
HOST = "a full host name such as results.lab.example"
UNICAST = "addresses of single hosts (unicast)"
SITE_KEYS = "site, title, zones, lifeline, resolvers, levels or dns_gate"
IFACE = "at most 15 of letters, digits and _.+-, '*' only at the end"

SITE_CASES = {
    # what is written -> what is said, with its place in site.yaml
    "name in capitals": (
        "site: chu-example",
        "site: CHU",
        f"1:7: 'CHU' is no name, expected {NAME}",
    ),
    "name is a YAML truth value": (
        "name: offices",
        "name: no",
        "8:11: 'no' (which YAML takes for yes or no), expected a name: write it in quotes, \"no\"",
    ),
    "name of 49": (
        "name: offices",
        f"name: {'a' * 49}",
        f"8:11: '{'a' * 49}' is no name, expected {NAME}",
    ),
    "zone gateway": (
        "name: offices",
        "name: gateway",
        "8:11: the name 'gateway' is Écluse's own, expected another name",
    ),
    "zone twice": (
        "name: offices",
        "name: care",
        "8:11: the name 'care' a second time, first at 4:11, expected another name",
    ),
    "title is a number": (
        "title: CHU d'Example",
        "title: 0555",
        "2:8: '0555' (which YAML takes for a number), expected a text: write it in quotes, \"0555\"",
    ),
    "title is base 60": (
        "title: CHU d'Example",
        "title: 22:22",
        "2:8: '22:22' (which YAML takes for a number), expected a text: write it in quotes, \"22:22\"",
    ),
    "title is yes to some YAML": (
        "title: CHU d'Example",
        "title: y",
        "2:8: 'y' (which YAML takes for yes or no), expected a text: write it in quotes, \"y\"",
    ),
    "title is a number to some YAML": (
        "title: CHU d'Example",
        "title: 12e5",
        "2:8: '12e5' (which YAML takes for a number), expected a text: write it in quotes, \"12e5\"",
    ),
    "title is a date": (
        "title: CHU d'Example",
        "title: 2027-01-31",
        '2:8: the date 2027-01-31, expected a text: write it in quotes, "2027-01-31"',
    ),
    "title too long": (
        "title: CHU d'Example",
        f"title: {'x' * 121}",
        "2:8: a text of 121 characters, expected at most 120",
    ),
    "title with an escape sequence": (
        "title: CHU d'Example",
        'title: "\\e[2J"',
        "2:8: the character U+001B in a text, expected one line of text that can be seen",
    ),
    "title empty": (
        "title: CHU d'Example",
        'title: ""',
        "2:8: an empty text, expected words for a person",
    ),
    "title is nothing": ("title: CHU d'Example", "title:", "2:7: nothing, expected a text"),
    "title is a list": ("title: CHU d'Example", "title: [x]", "2:8: a list, expected a text"),
    "unknown key": (
        "resolvers:",
        "resolver:",
        f"14:1: the key 'resolver' is unknown: did you mean 'resolvers'?, expected {SITE_KEYS}",
    ),
    "unknown key in a zone": (
        "    title: Care",
        "    titel: Care",
        "5:5: the key 'titel' is unknown: did you mean 'title'?, expected name, title, interfaces or subnets",
    ),
    "missing key": (
        "    interfaces: [lan1]\n",
        "",
        "8:5: the key 'interfaces' is missing, expected it among name, title, interfaces, subnets",
    ),
    "duplicate key": (
        "title: CHU d'Example",
        "site: other",
        "2:1: the key 'site' a second time, first at 1:1, expected each key once",
    ),
    "zones is no list": (
        "interfaces: [lan1]",
        "interfaces: lan1",
        "9:17: the text 'lan1', expected a list, such as [ ... ] or lines that begin with '- '",
    ),
    "empty list": (
        "interfaces: [lan1]",
        "interfaces: []",
        "9:17: an empty list, expected at least one",
    ),
    "interface twice": (
        "interfaces: [lan1]",
        "interfaces: [lan1, lan1]",
        "9:24: 'lan1' stands twice in this list, expected each once",
    ),
    "interface too long": (
        "interfaces: [lan1]",
        "interfaces: [enp0s31f6abcdefg]",
        f"9:18: 'enp0s31f6abcdefg' is no interface name, expected {IFACE}",
    ),
    "interface with a quote": (
        "interfaces: [lan1]",
        "interfaces: ['a\"b']",
        f"9:18: 'a\"b' is no interface name, expected {IFACE}",
    ),
    "interface as ip link shows it": (
        "interfaces: [lan1]",
        'interfaces: ["vlan10@lan0"]',
        "9:18: 'vlan10@lan0' is what 'ip link' shows of vlan10, which stands on 'lan0', expected the name alone: vlan10",
    ),
    "interface with an inner star": (
        "interfaces: [lan1]",
        "interfaces: [v*n1]",
        f"9:18: 'v*n1' is no interface name, expected {IFACE}",
    ),
    "bare star": (
        "interfaces: [lan1]",
        'interfaces: ["*"]',
        "9:18: '*' alone would make every interface an inside one, expected a name, or a pattern such as 'vlan1*'",
    ),
    "star without quotes": (
        "interfaces: [lan1]",
        "interfaces: [*]",
        (
            "9:19: a '*' or '&' at the beginning of a value means an alias in YAML, expected a wildcard or a pattern"
            " in quotes"
        ),
    ),
    "loopback in a zone": (
        "interfaces: [lan1]",
        "interfaces: [lo]",
        "9:18: 'lo' covers lo, the machine itself, expected interfaces towards the inside",
    ),
    "pattern over another zone's": (
        "interfaces: [lan1]",
        "interfaces: [vlan17]",
        "9:18: 'vlan17' is also covered by 'vlan1*' of zone 'care', expected each interface in one pattern only",
    ),
    "wider pattern than another zone's": (
        "interfaces: [lan1]",
        'interfaces: ["v*"]',
        "6:24: 'vlan1*' is also covered by 'v*' of zone 'offices', expected each interface in one pattern only",
    ),
    "host bits": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.4.7/16]",
        "10:15: '10.20.4.7/16' has bits set after the first 16, expected 10.20.0.0/16 (the network) or 10.20.4.7 (the address alone)",
    ),
    "netmask": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.0.0/255.255.0.0]",
        "10:15: the prefix length in '10.20.0.0/255.255.0.0', expected 10.20.0.0/16",
    ),
    "prefix too long": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.0.0/33]",
        "10:15: the prefix length in '10.20.0.0/33', expected 0 to 32",
    ),
    "no address": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20/16]",
        f"10:15: '10.20/16' is no address or prefix, expected {ADDRESS}",
    ),
    "octet with a zero before it": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.020.0.0/16]",
        f"10:15: '10.020.0.0/16' is no address or prefix, expected {ADDRESS}",
    ),
    "mapped address": (
        "subnets: [10.20.0.0/16]",
        'subnets: ["::ffff:10.20.0.0/112"]',
        "10:15: '::ffff:10.20.0.0/112' is IPv4 written as IPv6, expected 10.20.0.0/16",
    ),
    "everything is no zone": (
        "subnets: [10.20.0.0/16]",
        "subnets: [0.0.0.0/0]",
        "10:15: '0.0.0.0/0' is far more than one zone, expected the subnets of this zone",
    ),
    "multicast subnet": (
        "subnets: [10.20.0.0/16]",
        "subnets: [239.1.0.0/16]",
        f"10:15: '239.1.0.0/16' is or contains multicast, expected {UNICAST}",
    ),
    "overlap": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.10.128.0/17]",
        "10:15: the subnet '10.10.128.0/17' overlaps '10.10.0.0/16' of zone 'care', expected subnets that are disjoint",
    ),
    "overlap from above": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.0.0.0/8]",
        "10:15: the subnet '10.0.0.0/8' overlaps '10.10.0.0/16' of zone 'care', expected subnets that are disjoint",
    ),
    "management from everywhere": (
        "networks: [10.90.0.0/24]",
        "networks: [0.0.0.0/0]",
        f"12:27: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's prefixes, or {UNBOUNDED}",
    ),
    "management port 0": (
        "ports: [tcp/22]",
        "ports: [tcp/0]",
        "12:50: 'tcp/0': there is no port 0, expected ports 1 to 65535",
    ),
    "preset": (
        "presets: [dhcp, nd, vrrp]",
        "presets: [dhpc]",
        "13:13: 'dhpc' is unknown: did you mean 'dhcp'?, expected dhcp, nd or vrrp",
    ),
    "resolver by name": (
        "resolvers: [192.0.2.53]",
        "resolvers: [dns.example]",
        "14:13: 'dns.example' is no address, expected the address of a DNS server, such as 192.0.2.53",
    ),
    "built-in level": (
        "name: reduced",
        "name: cut",
        "16:12: the name 'cut' is Écluse's own, expected another name",
    ),
    "level without vital": (
        "keeps: [vital, important]",
        "keeps: [important]",
        "16:56: a level that does not keep 'vital' would be more closed than 'cut', expected vital and more (for less there is 'isolate')",
    ),
    "level like cut": (
        "keeps: [vital, important]",
        "keeps: [vital]",
        "16:56: a level that keeps 'vital' alone is the same as 'cut', expected vital and more",
    ),
    "level without important": (
        "keeps: [vital, important]",
        "keeps: [vital, deferrable]",
        "16:56: 'deferrable' is kept and 'important' is not, expected [vital, important] or [vital, important, deferrable]",
    ),
    "same level twice": (
        "keeps: [vital, important]}\n",
        "keeps: [vital, important]}\n  - {name: other, keeps: [important, vital]}\n",
        "17:26: the level 'reduced' keeps the same, expected levels that differ",
    ),
    "colon in a value": (
        "title: CHU d'Example",
        "title: CHU: Example",
        (
            "2:11: a second ': ' in one value, or a line too far to the right, expected text with a colon in quotes, "
            "keys of one mapping in one column (a port stands in ports: [tcp/443])"
        ),
    ),
    "open list": (
        "presets: [dhcp, nd, vrrp]",
        "presets: [dhcp, nd",
        "14:10: a list that began with '[' is not closed, expected a ']'",
    ),
    "open quote": (
        "title: CHU d'Example",
        "title: 'CHU dExample",
        "2:8: a quote that is never closed, expected a closing quote",
    ),
    "anchor": (
        "title: CHU d'Example",
        "title: &a CHU",
        "2:8: the anchor '&a', expected the value alone",
    ),
    "alias": (
        "title: CHU d'Example",
        "title: *a",
        "2:8: the alias '*a', expected the value itself",
    ),
    "tag": (
        "title: CHU d'Example",
        "title: !!python/name:os.system x",
        "2:8: the YAML tag 'tag:yaml.org,2002:python/name:os.system', expected the value alone",
    ),
    "merge key": (
        "title: CHU d'Example",
        "<<: {title: x}",
        "2:1: a merge key '<<', expected the keys themselves",
    ),
    "second document": (
        "title: CHU d'Example\n",
        "---\n",
        "2:1: a second document begins here, expected one document in a file",
    ),
    "number as key": (
        "title: CHU d'Example",
        "1: x",
        "2:1: the number 1 as a key, expected a word",
    ),
    "tab": ("title: CHU d'Example", "title:\tx", "2:7: a tab, expected spaces"),
    "NUL": (
        "title: CHU d'Example",
        "title: a\0b",
        "2:9: the character U+0000, which can't be seen, expected text that can be seen",
    ),
    "right-to-left override": (
        "title: CHU d'Example",
        "title: a\u202eb",
        "2:9: the character U+202E, which can't be seen, expected text that can be seen",
    ),
    "nesting": (
        "title: CHU d'Example",
        f"title: {'[' * 40}",
        "2:23: lists and mappings nested 16 deep, expected far fewer",
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_site(files, case):
    old, new, said = SITE_CASES[case]
    files.site(old, new)
    found = faults(files)
    assert f"site.yaml:{said}" in found
    # One mistake is said once. Where the file can't be read to its end, no other mistake is
    # guessed.
    assert len(found) == 1 or case in {"unknown key", "second document", "nesting"}, found


def test_what_is_missing_after_the_second_document_is_not_hidden(files):
    files.site("title: CHU d'Example\n", "---\n")
    assert faults(files)[0] == (
        "site.yaml:1:1: the key 'zones' is missing, expected it among site, title, zones, lifeline, resolvers, levels, dns_gate"
    )


L = "allowlist.d/10-labs.yaml:"
TO = "to: [results.lab.example, 203.0.113.10]"
PORTS = "ports: [tcp/443]"

LABS_CASES = {
    "unknown key": ("    owner: Biology", "    ownr: Biology", "4:5: the key 'ownr' is unknown: did you mean 'owner'?, expected name, title, owner, contact, criticality, zones, hosts, destinations, review or note"),
    "unknown key at the top": ("services:", "servces:", "1:1: the key 'servces' is unknown: did you mean 'services'?, expected services"),
    "contact as a number": ('contact: "+33 5 55 55 01 00"', "contact: 0555", "5:14: '0555' (which YAML takes for a number), expected a text: write it in quotes, \"0555\""),
    "contact as +33": ('contact: "+33 5 55 55 01 00"', "contact: +33555550100", "5:14: '+33555550100' (which YAML takes for a number), expected a text: write it in quotes, \"+33555550100\""),
    "criticality": ("criticality: vital", "criticality: Vital", "6:18: 'Vital' is unknown: did you mean 'vital'?, expected vital, important or deferrable"),
    "unknown zone": ("zones: [care]", "zones: [car]", "7:13: there is no zone 'car': did you mean 'care'?, expected care, offices or gateway"),
    "for nobody": ("    zones: [care]\n", "", "2:5: neither 'zones' nor 'hosts', expected who inside may use the service"),
    "host outside": ("zones: [care]", "hosts: [192.0.2.7]", "7:13: '192.0.2.7' lies in no zone's subnets, expected a host of the inside"),
    "host prefix wider than its zone": ("zones: [care]", "hosts: [10.0.0.0/8]", "7:13: '10.0.0.0/8' lies in no zone's subnets, expected a host of the inside"),
    "everything": (TO, "to: [0.0.0.0/0]", f"9:14: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's prefixes, or {UNBOUNDED}"),
    "everything IPv6": (TO, 'to: "::/0"', f"9:13: '::/0' is the whole internet, or much of it, expected the partner's prefixes, or {UNBOUNDED}"),
    "half of everything": (TO, "to: [128.0.0.0/1]", f"9:14: '128.0.0.0/1' is the whole internet, or much of it, expected the partner's prefixes, or {UNBOUNDED}"),
    "any": (TO, "to: any", f"9:13: 'any' is the whole internet, expected the partner's addresses, or {UNBOUNDED}"),
    "any with unbounded false": (TO, "to: any\n        unbounded: false", f"9:13: 'any' is the whole internet, expected the partner's addresses, or {UNBOUNDED}"),
    "unbounded is a text": (TO, 'to: any\n        unbounded: "true"', "10:20: the text 'true', expected true or false"),
    "unbounded yes": (TO, "to: any\n        unbounded: yes", "10:20: 'yes' (which YAML takes for yes or no), expected true or false"),
    "private yes": (TO, "to: a.example\n        private: yes", "10:18: 'yes' (which YAML takes for yes or no), expected true or false"),
    "private is a list": (TO, "to: a.example\n        private: [10.0.0.0/8]", "10:18: a list, expected true or false"),
    "from everywhere": (TO, "from: 0.0.0.0/0", f"9:15: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's prefixes, or {UNBOUNDED}"),
    "both ways": (TO, "to: 203.0.113.10\n        from: 203.0.113.10", "10:9: 'to' and 'from' in one destination, expected two destinations"),
    "neither way": (f"- {TO}\n        ", "- ", "9:9: neither 'to' nor 'from', expected one of the two"),
    "loopback": (TO, "to: 127.0.0.1", f"9:13: '127.0.0.1' is or contains loopback, expected {UNICAST}"),
    "unspecified": (TO, 'to: "::"', f"9:13: '::' is or contains the unspecified address, expected {UNICAST}"),
    "multicast": (TO, "to: ff02::1", f"9:13: 'ff02::1' is or contains multicast, expected {UNICAST}"),
    "multicast beside unbounded": (TO, "to: 224.0.0.0/4\n        unbounded: true", f"9:13: '224.0.0.0/4' is or contains multicast, expected {UNICAST}"),
    "mapped": (TO, 'to: "::ffff:203.0.113.10"', "9:13: '::ffff:203.0.113.10' is IPv4 written as IPv6, expected 203.0.113.10"),
    "wildcard over much": (TO, 'to: "*.example"', "9:13: '*.example' is much of the internet, expected a domain of the partner's own"),
    "wildcard in the middle": (TO, 'to: "www.*.example"', "9:13: 'www.*.example' is no wildcard, expected '*.' before a domain, such as *.operator.example"),
    "wildcard that comes in": (TO, 'from: "*.lab.example"', "9:15: the wildcard '*.lab.example' in 'from', expected prefixes: who connects in has no name"),
    "records without a name": (TO, "to: 203.0.113.10\n        records: [MX]", "10:18: 'records' without a host name or a wildcard in 'to', expected none, or the names that have them"),
    "record type": (PORTS, "ports: [tcp/443]\n        records: [TXT]", "11:19: 'TXT' is unknown, expected MX or SRV"),
    "port in the host": (TO, "to: [results.lab.example:443]", "9:14: a port in the destination 'results.lab.example:443', expected 'results.lab.example' here and the port in ports: [tcp/443]"),
    "port in the address": (TO, 'to: ["[2001:db8::1]:443"]', "9:14: a port in the destination '[2001:db8::1]:443', expected '2001:db8::1' here and the port in ports: [tcp/443]"),
    "host: port": (TO, "to: results.lab.example: 443", "9:32: a second ': ' in one value, or a line too far to the right, expected text with a colon in quotes, keys of one mapping in one column (a port stands in ports: [tcp/443])"),
    "host: port in a list": (TO, "to: [results.lab.example: 443]", "9:14: a mapping, expected a host name, an address or a prefix"),
    "URL": (TO, "to: https://results.lab.example/x", "9:13: 'https://results.lab.example/x' is the address of a page, expected the host name alone, the port in ports: [tcp/443]"),
    "range of addresses": (TO, "to: 203.0.113.1-203.0.113.9", "9:13: '203.0.113.1-203.0.113.9' is a range of addresses, expected prefixes, such as 203.0.113.8/29"),
    "one word": (TO, "to: results", f"9:13: 'results' is one word, expected {HOST}: nothing is added to it"),
    "underscore": (TO, "to: my_lab.example", f"9:13: 'my_lab.example' is no host name: an underscore, expected {HOST} (letters, digits and '-')"),
    "hyphen first": (TO, "to: '-x.lab.example'", f"9:13: '-x.lab.example' is no host name: the part '-x', expected {HOST} (letters, digits and '-')"),
    "label of 64": (TO, f"to: {'a' * 64}.example", f"9:13: '{'a' * 57}...' is no host name: the part '{'a' * 57}...', expected {HOST} (letters, digits and '-')"),
    "half an address": (TO, "to: 203.0.113", f"9:13: '203.0.113' is no address or prefix, expected {ADDRESS}"),
    "a number": (TO, "to: 203.113", "9:13: '203.113' (which YAML takes for a number), expected a host name, an address or a prefix"),
    "number at the end": (TO, "to: lab.example.123", f"9:13: 'lab.example.123' is no host name, expected {HOST}"),
    "sharp s": (TO, "to: straße.example", "9:13: 'straße.example' can be written in two ways in DNS, expected its form that begins with xn--"),
    "scope": (TO, "to: fe80::1%eth0", "9:13: a scope in 'fe80::1%eth0', expected the address without '%'"),
    "target twice": (TO, "to: [203.0.113.10, 203.0.113.10/32]", "9:28: '203.0.113.10' stands twice in this list, expected each once"),
    "port 0": (PORTS, "ports: [tcp/0]", "10:17: 'tcp/0': there is no port 0, expected ports 1 to 65535"),
    "port 65536": (PORTS, "ports: [tcp/1-65536]", "10:17: 'tcp/1-65536': there is no port 65536, expected ports 1 to 65535"),
    "reversed": (PORTS, "ports: [udp/510-500]", "10:17: 'udp/510-500': the range is reversed, expected udp/500-510"),
    "bare port": (PORTS, "ports: [443]", "10:17: the number 443, expected a protocol and port such as tcp/443"),
    "bare range": (PORTS, "ports: [10000-20000]", "10:17: '10000-20000' names no protocol, expected tcp/10000-20000 or udp/10000-20000"),
    "base 60": (PORTS, "ports: [22:22]", "10:17: '22:22' (which YAML takes for a number), expected a protocol and port such as tcp/443"),
    "turned": (PORTS, "ports: [443/tcp]", "10:17: '443/tcp', expected tcp/443"),
    "colon": (PORTS, "ports: [tcp:443]", "10:17: 'tcp:443', expected tcp/443"),
    "no port": (PORTS, "ports: [tcp]", "10:17: 'tcp' names no port, expected tcp/443, tcp/500-510, or tcp/1-65535 for every port"),
    "ah over IPv6": ("203.0.113.10]\n        ports: [tcp/443]", '"2001:db8::1"]\n        ports: [esp, ah]', "9:35: 'ah' with '2001:db8::1': over IPv6 it can't be told from what it carries, and would be refused, expected IPv4 addresses for ah, or esp"),
    "esp with a port": (PORTS, "ports: [esp/50]", "10:17: 'esp/50': esp has no ports, expected esp alone"),
    "capitals": (PORTS, "ports: [TCP/443]", "10:17: 'TCP/443' in capitals, expected tcp/443"),
    "icmpv6": (PORTS, "ports: [icmpv6]", "10:17: 'icmpv6', expected icmp (it stands for both families)"),
    "unknown protocol": (PORTS, "ports: [https]", "10:17: 'https' is no protocol that can be kept, expected a protocol and port such as tcp/443 or udp/500-510, or esp, ah, gre, icmp"),
    "no such day": ("review: 2027-01-31", "review: 2027-02-30", "11:13: '2027-02-30' (which YAML takes for a date that does not exist), expected a date such as 2027-01-31"),
    "day in words": ("review: 2027-01-31", "review: soon", "11:13: the text 'soon', expected a date such as 2027-01-31"),
    "services is a mapping": ("services:\n  - name: laboratory", "services:\n    name: laboratory", "2:5: a mapping, expected a list, such as [ ... ] or lines that begin with '- '"),
}  # fmt: skip


@pytest.mark.parametrize("case", LABS_CASES)
def test_allowlist(files, case):
    old, new, said = LABS_CASES[case]
    files.labs(old, new)
    found = faults(files)
    assert L + said in found
    assert len(found) == 1 or case == "unknown key at the top", found


def test_a_service_twice_names_the_first_place(files):
    files.write("allowlist.d/20-more.yaml", (files.path / "allowlist.d/10-labs.yaml").read_text())
    assert faults(files) == [
        f"allowlist.d/20-more.yaml:2:11: the service 'laboratory' a second time, first at {files.path}/{L}2:11, expected each service once".replace(
            f"{files.path}/", ""
        )
    ]


def test_all_faults_of_all_files_at_once(files):
    files.site("site: chu-example", "site: CHU")
    files.labs(PORTS, "ports: [tcp/0, udp/9-3]")
    files.write("allowlist.d/20-more.yaml", "services:\n  - name: x\n    zone: [care]\n")
    files.write("allowlist.d/30-broken.yaml", "services: [\n")
    files.write("allowlist.d/40-latin1.yaml", "# ok\nservices: # \xe9\n".encode("latin-1"))
    found = faults(files)
    assert [line.split(": ")[0] for line in found] == [
        f"{L}10:17",
        f"{L}10:24",
        *["allowlist.d/20-more.yaml:2:5"] * 4,
        "allowlist.d/20-more.yaml:3:5",
        "allowlist.d/30-broken.yaml:2:1",
        "allowlist.d/40-latin1.yaml:2:13",
        "site.yaml:1:7",
    ]
    missing = {line.split("'")[1] for line in found if "is missing" in line}
    assert missing == {"title", "criticality", "destinations"}


def test_zones_are_still_known_when_the_rest_of_the_site_is_wrong(files):
    files.site("site: chu-example", "site: CHU")
    files.labs("zones: [care]", "zones: [car]")
    assert len(faults(files)) == 2


def test_unknown_zones_are_not_guessed_while_a_zone_is_wrong(files):
    files.site("name: offices", "name: Offices")
    files.labs("zones: [care]", "zones: [offices]")
    assert len(faults(files)) == 1


def test_not_utf8(files):
    files.write("site.yaml", "site: chu-example\ntitle: H\xf4pital\n".encode("latin-1"))
    assert faults(files) == [
        "site.yaml:2:9: the byte 0xf4 is not UTF-8, expected a file saved as UTF-8"
    ]


@pytest.mark.parametrize("text", ["", "\n", "---\n", "---\n# nothing\n"])
def test_an_emptied_file_is_not_an_allowlist_without_services(files, text):
    files.write("allowlist.d/20-more.yaml", text)
    (fault,) = faults(files)
    assert fault.startswith("allowlist.d/20-more.yaml:")


def test_an_allowlist_without_any_service(files):
    files.write("allowlist.d/10-labs.yaml", "services: []\n")
    assert faults(files) == [
        "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least one service"
    ]
    (files.path / "allowlist.d/10-labs.yaml").unlink()
    assert faults(files) == [
        "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least one service"
    ]


def test_missing_things(files):
    (files.path / "site.yaml").unlink()
    (files.path / "allowlist.d/10-labs.yaml").unlink()
    (files.path / "allowlist.d").rmdir()
    assert faults(files) == [
        "allowlist.d: there is no such file or directory, expected one, with the form that config/ shows",
        "site.yaml: there is no such file or directory, expected one, with the form that config/ shows",
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.mkdir(), "this is a directory, expected a regular file"),
        (os.mkfifo, "this is a FIFO, expected a regular file"),
        (lambda p: p.symlink_to("/nowhere/x.yaml"), "a link to /nowhere/x.yaml, which does not exist, expected a file"),
        (lambda p: p.symlink_to(p), "it can't be read: Too many levels of symbolic links, expected a readable file"),
        (lambda p: p.symlink_to("/dev/zero"), "this is a device, expected a regular file"),
        (lambda p: p.write_bytes(b"#" * (4 * 1024 * 1024 + 1)), "the file is larger than 4194304 bytes, expected several files in allowlist.d"),
    ],
)  # fmt: skip
def test_what_is_no_readable_file(files, make, said):
    make(files.path / "allowlist.d/20-more.yaml")
    assert faults(files) == [f"allowlist.d/20-more.yaml: {said}"]


def test_a_file_that_may_not_be_read(files, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    said = f"user {os.geteuid()} may not read it, expected read permission for the daemon"
    assert faults(files) == [f"{L[:-1]}: {said}", f"site.yaml: {said}"]


def test_a_link_to_a_good_file_is_read(files, tmp_path):
    target = tmp_path / "elsewhere"
    (files.path / "site.yaml").rename(target)
    (files.path / "site.yaml").symlink_to(target)
    assert load_policy(files.path).site.name == "chu-example"


def test_yml_is_a_fault_and_hidden_files_are_not_read(files):
    files.write("allowlist.d/20-more.yml", "services: []")
    files.write("allowlist.d/.20-more.yaml", b"\x00\xff")
    (files.path / "allowlist.d/.#20-more.yaml").symlink_to("somebody@somewhere")  # an editor's lock
    assert faults(files) == [
        "allowlist.d/20-more.yml: the file would not be read, expected a name that ends in .yaml"
    ]


def test_a_file_name_cannot_write_on_the_terminal(files):
    name = os.fsencode(files.path) + b"/allowlist.d/\x1b[2J\xff.yaml"
    with open(name, "wb") as file:
        file.write(b"[")
    assert faults(files)[0].startswith("allowlist.d/\\x1b[2J\\udcff.yaml:")


def test_values_cannot_write_on_the_terminal(files):
    files.labs("title: Outside laboratory", 'title: Outside laboratory\n    "\\e]0;x\\a": 1')
    (fault,) = faults(files)
    assert "\x1b" not in fault
    assert "'\\x1b]0;x\\x07'" in fault


def test_thousands_of_faults_are_counted_and_a_thousand_listed(files):
    files.write("allowlist.d/20-more.yaml", "services:\n" + "  - 1\n" * 5000)
    with pytest.raises(ConfigError) as caught:
        read_directory(files.path)
    assert len(caught.value.faults) == 1001
    assert caught.value.faults[0] == Fault(
        str(files.path), 0, 0, "more than 1000 faults: the rest is not listed here, nor looked for"
    )


def test_the_same_places_with_windows_line_ends_and_a_byte_order_mark(files):
    text = (
        (files.path / "site.yaml")
        .read_text()
        .replace("name: offices", "name: Offices")
        .replace("\n", "\r\n")
    )
    files.write("site.yaml", b"\xef\xbb\xbf" + text.encode())
    assert faults(files) == [f"site.yaml:8:11: 'Offices' is no name, expected {NAME}"]


def test_tabs_in_comments_are_nobodys_business(files):
    files.site("title: CHU d'Example", "title: CHU #\tthe hospital\n#\t\tand more")
    assert load_policy(files.path).site.title == "CHU"
