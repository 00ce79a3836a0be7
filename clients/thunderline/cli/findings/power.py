"""What keeps a Mac from staying up: sleep, a power failure, FileVault; and how much Metal may wire. Pure."""

from thunderline.cli.findings.finding import Finding, note, warning
from thunderline.cli.findings.machine import GIB
from thunderline.cli.findings.macs import Mac
from thunderline.process.macos import outputs

MIB = 2**20
# Of Metal, as long as iogpu.wired_limit_mb is 0, where it tells nothing more exact.
DEFAULT_SHARE = 0.75
WIRED_LIMIT = "iogpu.wired_limit_mb"


def of_power(mac: Mac) -> list[Finding]:
    facts, found = mac.facts, []
    if facts.sleep_after_min:
        found.append(
            warning(
                f"it goes to sleep after {facts.sleep_after_min} min",
                "a Mac that sleeps answers nothing, its ranks end, and no packet over Thunderbolt wakes it up",
                "`sudo pmset -a sleep 0`",
                f"`{outputs.POWER}`: sleep {facts.sleep_after_min}",
                "whether something keeps it awake now",
            )
        )
    if facts.starts_after_power_failure is False:
        found.append(
            warning(
                "it stays off after a power failure",
                "somebody has to press its button then",
                "`sudo pmset -a autorestart 1`",
                f"`{outputs.POWER}`: autorestart 0",
            )
        )
    if facts.is_filevault_on:
        found.append(
            warning(
                "FileVault is on: after a restart it waits for a person",
                "until somebody has unlocked its disk, at the machine, or by SSH from macOS 26 on when Remote Login is "
                "on, nothing of it runs",
                "for a restart that you plan `sudo fdesetup authrestart`; where its disk need not be encrypted "
                "`sudo fdesetup disable`",
                f"`{outputs.FILEVAULT}`: FileVault is On.",
                "whether it can be unlocked by SSH: that is said of macOS 26, and was not tried",
            )
        )
    return found


def of_wired_limit(mac: Mac, wanted_bytes: int | None, config: str) -> list[Finding]:
    """`wanted_bytes`: [runner] memory_bytes, 0 when it is not set; None: of another node, whose settings we do not see.

    A limit that somebody has set is 0 again after a reboot.
    """
    facts = mac.facts
    if facts.wired_limit_bytes is None:
        return []
    is_set = facts.wired_limit_bytes > 0
    limit_bytes = facts.wired_limit_bytes or facts.working_set_bytes or int(mac.memory_bytes * DEFAULT_SHARE)
    seen = f"`sysctl {WIRED_LIMIT}`: {WIRED_LIMIT}: {facts.wired_limit_bytes // MIB}"
    # What a runner promises without the setting, where Metal's own share was changed.
    promised_bytes = wanted_bytes or (int(mac.memory_bytes * DEFAULT_SHARE) if is_set and wanted_bytes == 0 else 0)
    # More than there is at all is of_memory's.
    if limit_bytes < promised_bytes <= mac.memory_bytes:
        by = "[runner] memory_bytes is" if wanted_bytes else "without [runner] memory_bytes it is 75%, so"
        default = "" if is_set else " (its default)"
        return [
            warning(
                "ranks are promised more memory than Metal may wire",
                f"{by} {promised_bytes / GIB:.1f} GiB, and Metal may wire {limit_bytes / GIB:.1f}{default}; ranks that "
                "take more get slow or are ended",
                f"`sudo sysctl {WIRED_LIMIT}={-(-promised_bytes // MIB)}`, again after each reboot; or make "
                f"`[runner] memory_bytes` in {config} smaller",
                seen,
            )
        ]
    if is_set:
        why = f"Metal may wire {limit_bytes / GIB:.1f} GiB, until the next reboot; then about 75% again"
        return [note("wired limit", why, seen)]
    return []
