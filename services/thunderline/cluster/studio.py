"""The port of a Mac Studio at which RDMA does not work: the one next to Ethernet. Pure."""

# That it is en2, receptacle 1, is known of the M3 Ultra; on a Mac mini en2 is a port like the others.
STUDIO, KNOWN_STUDIOS = "Mac Studio", {"Mac15,14"}
FORBIDDEN_INTERFACE, FORBIDDEN_RECEPTACLE = "en2", "1"


def is_next_to_ethernet(model: str, model_name: str, interface: str, receptacle: str) -> bool:
    """`model`: "Mac15,14"; `model_name`: "Mac Studio". By the interface where the system tells it."""
    if not model_name.startswith(STUDIO) and model not in KNOWN_STUDIOS:
        return False
    return interface == FORBIDDEN_INTERFACE if interface else receptacle == FORBIDDEN_RECEPTACLE
