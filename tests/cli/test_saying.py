"""How the command line speaks."""

import io

from rich.console import Console

from thunderline.cli.saying import Progress


def test_a_status_line_says_what_it_is_given() -> None:
    """A folder may be called as markup is written."""
    shown = io.StringIO()
    with Progress(Console(file=shown, force_terminal=True, width=80)) as progress:
        progress.say("asking the nodes about /models/[/x]/[bold] ...")
    assert "/models/[/x]/[bold] ..." in shown.getvalue()
