"""Help and usage."""


def test_every_verb_that_help_names_can_be_run(ecluse):
    code, out, _ = ecluse("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for verb in (
        "status",
        "cut",
        "isolate",
        "open",
        "level",
        "rollback",
        "history",
        "show",
        "reload",
        "plan",
        "services",
        "refused",
        "check",
        "events",
        "audit",
    ):
        assert f"    {verb} " in out
        code, text, _ = ecluse(verb, "--help")
        assert code == 0
        assert "usage: ecluse" in text
        assert "--json" in text
    for code in range(7):
        assert f"\n  {code}  " in out
