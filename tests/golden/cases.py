"""Golden cases, a folder each: the site's files and addresses in, the whole ruleset out.

`python -m tests.golden.cases` writes the expected texts anew; read the difference before you commit
it.
"""

import json
from ipaddress import ip_address
from pathlib import Path

from ecluse.config.load import load_policy
from ecluse.policy import Policy
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.program import Program

HERE = Path(__file__).parent


def cases() -> list[Path]:
    return sorted(path.parent for path in HERE.glob("*/site.yaml"))


def compiled(case: Path, slot: int = 1) -> tuple[Policy, Program]:
    policy = load_policy(case)
    texts = json.loads((case / "addresses.json").read_text())
    addresses = {name: tuple(ip_address(a) for a in found) for name, found in texts.items()}
    return policy, compile_program(policy, addresses, slot, uids=(990, 989))


def levels(case: Path, policy: Policy) -> dict[str, str]:
    wanted = json.loads((case / "levels.json").read_text())
    return {zone: wanted.get(zone, wanted["*"]) for zone in policy.zone_names()}


def text(case: Path) -> str:
    policy, program = compiled(case)
    return switch.table_text(program) + switch.switch_text(policy, 1, levels(case, policy))


if __name__ == "__main__":
    for case in cases():
        (case / "expected.nft").write_text(text(case))
