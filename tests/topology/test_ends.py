"""The media of a Mac's own interfaces: its discovery knows them, and its card tells."""

from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.process.interfaces import Interface
from thunderline.topology.ends import Ends

OTHER, THUNDERBOLT, ETHERNET, WIFI = Medium.OTHER, Medium.THUNDERBOLT, Medium.ETHERNET, Medium.WIFI
TOLD = {"en0": ETHERNET, "en2": THUNDERBOLT, "gone0": WIFI}


class Reads:
    """What the system says: names and addresses, and of the media nothing."""

    names: tuple[str, ...] = ("en0", "en2")

    def __call__(self) -> tuple[Interface, ...]:
        return tuple(Interface(name, OTHER, (f"10.0.{n}.1",), True, 1500) for n, name in enumerate(self.names))


def media(ends: Ends) -> dict[str, Medium]:
    return {one.name: one.medium for one in ends.interfaces}


def test_they_are_unknown_until_the_card_tells_and_then_known_at_once() -> None:
    ends = Ends({}, Reads(), "darwin")
    assert media(ends) == {"en0": OTHER, "en2": OTHER}
    ends.learn(TOLD)
    assert media(ends) == {"en0": ETHERNET, "en2": THUNDERBOLT}
    ends.close()
    # Its owner, where the route cannot be asked.
    assert ends.leaves("10.0.9.9", "10.0.1.1") == End("en2", THUNDERBOLT)


def test_what_it_told_holds_for_the_next_look_and_for_an_interface_that_comes_back() -> None:
    reads = Reads()
    ends = Ends({}, reads, "darwin")
    ends.learn(TOLD)
    assert not ends.look()
    reads.names = ("en0",)
    assert ends.look()
    reads.names = ("en0", "en2", "en7")
    assert ends.look()
    assert media(ends) == {"en0": ETHERNET, "en2": THUNDERBOLT, "en7": OTHER}
    ends.close()


def test_when_it_tells_something_else_that_holds() -> None:
    ends = Ends({}, Reads(), "darwin")
    ends.learn(TOLD)
    ends.learn({**TOLD, "en2": ETHERNET})
    assert media(ends) == {"en0": ETHERNET, "en2": ETHERNET}
    ends.close()


def test_the_settings_of_this_role_win() -> None:
    def read() -> tuple[Interface, ...]:
        return (Interface("en2", WIFI, ("10.0.1.1",), True, 1500), Interface("en0", OTHER, (), True, 1500))

    ends = Ends({"en2": WIFI}, read, "darwin")
    ends.learn(TOLD)
    assert media(ends) == {"en2": WIFI, "en0": ETHERNET}
    ends.close()


def test_a_card_that_tells_of_no_media_changes_none() -> None:
    ends = Ends({}, lambda: (Interface("eth0", ETHERNET, ("10.0.1.1",), True, 1500),), "linux")
    ends.learn({})
    assert media(ends) == {"eth0": ETHERNET}
    ends.close()
