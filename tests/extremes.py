"""Sites at the bounds of what `ecluse check` takes, as files.

Each list as long as it may be, each name as long as it may be.
"""

from collections.abc import Iterator
from pathlib import Path

from ecluse.config import size_limits

LONG = 48
NAMES = "-of-the-longest-names-that-a-site-may-give-0123456789"


def long_name(word: str) -> str:
    return (word + NAMES)[:LONG]


ZONE_NAMES = [long_name(f"z{n:02}") for n in range(size_limits.ZONES)]
LEVELS = [long_name("program-a"), long_name("program-b")]
HOST = ".".join(["h" * 63, "o" * 63, "s" * 63, "example"])


def interface(number: int, *, wild: bool = False) -> str:
    name = f"lan{number:04}"
    return name.ljust(14, "x") + "*" if wild else name.ljust(15, "x")


def site(interfaces: dict[str, list[str]], subnets: dict[str, list[str]], more: str = "") -> str:
    zones = "".join(
        f"  - name: {zone}\n    interfaces: [{', '.join(f'{i!r}' for i in interfaces[zone])}]\n"
        f"    subnets: [{', '.join(f'{s!r}' for s in subnets[zone])}]\n"
        for zone in interfaces
    )
    levels = (
        f"levels:\n  - {{name: {LEVELS[0]}, keeps: [vital, important]}}\n"
        f"  - {{name: {LEVELS[1]}, keeps: [vital, important, deferrable]}}\n"
    )
    return f"site: {long_name('site')}\nzones:\n{zones}{levels}resolvers: [192.0.2.53]\n{more}"


def service(number: int, zones: list[str], destinations: str, criticality: str = "vital") -> str:
    return (
        f"  - name: {long_name(f's{number:05}')}\n    title: A service\n"
        f"    criticality: {criticality}\n"
        f"    zones: [{', '.join(zones)}]\n    destinations:\n{destinations}"
    )


def destination(targets: list[str], ports: list[str]) -> str:
    return (
        f"      - to: [{', '.join(f'{t!r}' for t in targets)}]\n"
        f"        ports: [{', '.join(ports)}]\n"
    )


def spread(per_zone: int, *, wild: bool = False) -> dict[str, list[str]]:
    return {
        zone: [interface(at * per_zone + n, wild=wild) for n in range(per_zone)]
        for at, zone in enumerate(ZONE_NAMES)
    }


def subnets(per_zone: int) -> dict[str, list[str]]:
    def one(number: int) -> str:
        return (
            f"2001:db8:{number:x}::/48" if number % 2 else f"10.{number // 250}.{number % 250}.0/24"
        )

    return {
        zone: [one(at * per_zone + n) for n in range(per_zone)]
        for at, zone in enumerate(ZONE_NAMES)
    }


GATE = "dns_gate: {mode: always, internal: [{names: [hospital.example], servers: [10.0.0.53]}]}\n"


def shared() -> tuple[str, list[str]]:
    """Every zone on the same interfaces, by exact name and by pattern, and a DNS gate."""
    each = [interface(0), interface(1, wild=True), interface(2), interface(3, wild=True)]
    one = service(0, ZONE_NAMES[:1], destination(["*.partner.example"], ["tcp/443"]))
    return site(dict.fromkeys(ZONE_NAMES, each), subnets(15), GATE), [one]


def groups() -> tuple[str, list[str]]:
    """As many groups of zones that share an interface as there may be."""
    each = {zone: [] for zone in ZONE_NAMES}
    for number in range(size_limits.INTERFACES // 2):
        for step in (0, 1 + number // 64):
            each[ZONE_NAMES[(number + step) % 64]].append(interface(number, wild=number % 3 == 0))
    one = service(0, ZONE_NAMES, destination(["*.partner.example", HOST], ["tcp/443"]))
    return site(each, subnets(15), GATE), [one]


def names(count: int = size_limits.BY_NAME) -> tuple[str, list[str]]:
    """As many services with names as there may be beside a DNS gate, in zones that make as many
    rules as there may be.
    """
    zones = ZONE_NAMES[: size_limits.RULES_BY_NAME // (count * 4 * 3)]
    every = [
        service(
            n,
            zones,
            destination(
                [f"*.p{n}.example", f"{n}.{HOST}"[-253:].strip(".")], ["tcp/443", "udp/443"]
            ),
        )
        for n in range(count)
    ]
    return site(spread(4), subnets(15), GATE), every


def many(count: int = size_limits.SERVICES) -> tuple[str, list[str]]:
    """As many services as there may be."""

    def made() -> Iterator[str]:
        for n in range(count):
            criticality = ("vital", "important", "deferrable")[n % 3]
            address = f"203.{n // 65536}.{n // 256 % 256}.{n % 256}"
            yield service(n, [ZONE_NAMES[n % 7]], destination([address], ["tcp/443"]), criticality)

    return site(spread(4), subnets(15)), list(made())


def kinds() -> tuple[str, list[str]]:
    """As many kinds of services (zones and criticality) as there may be look-ups for."""
    every = [
        service(
            n,
            [
                zone
                for at, zone in enumerate(ZONE_NAMES)
                if n * 7919 % 16127 >> at % 12 & 1 or at == n % 64
            ],
            destination(
                [f"203.0.{n // 256}.{n % 256}", f"198.18.{n}.0/25"], ["tcp/443", "udp/1-5", "esp"]
            ),
        )
        for n in range(28)
    ]
    return site(spread(4), subnets(15)), every


def write(folder: Path, written: tuple[str, list[str]]) -> Path:
    """Write a site as files, of at most 2,000 services each."""
    text, services = written
    (folder / "allowlist.d").mkdir(parents=True)
    (folder / "site.yaml").write_text(text)
    for at in range(0, len(services), 2000):
        file = folder / "allowlist.d" / f"{at:05}.yaml"
        file.write_text("services:\n" + "".join(services[at : at + 2000]))
    return folder


SITES = {each.__name__: each for each in (shared, groups, names, many, kinds)}
