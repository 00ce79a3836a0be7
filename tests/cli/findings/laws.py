"""What holds of every finding, and a short form of them for tables."""

from collections.abc import Iterable

from thunderline.cli.findings.finding import Finding, Severity

WRONG, WARNING, NOTE = (one.value for one in Severity)


def short(found: Iterable[Finding]) -> list[tuple[str, str]]:
    """Severity and what, once it is sure that each says why, and names a command or a setting that mends it."""
    findings = list(found)
    for one in findings:
        assert one.what and one.why, one
        assert "\n" not in one.what + one.seen + one.why + one.remedy + one.unknown, one
        assert not one.unknown or one.unknown.split()[0] in ("whether", "which", "what"), one
        if one.severity is Severity.NOTE:
            assert not one.remedy, one
        else:
            assert one.remedy.count("`") >= 2 and one.remedy.count("`") % 2 == 0, one
    return [(one.severity.value, one.what) for one in findings]


def only(found: Iterable[Finding]) -> Finding:
    findings = list(found)
    short(findings)
    assert len(findings) == 1, findings
    return findings[0]


def troubles(found: Iterable[Finding]) -> list[Finding]:
    """Without notes."""
    findings = list(found)
    short(findings)
    return [one for one in findings if one.severity is not Severity.NOTE]
