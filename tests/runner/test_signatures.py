"""What is made of the last words of ranks that ended as others have met it."""

import pytest

from thunderline.runner.signatures import SIGNATURES, Signature, match

# What is said of an end: the issues that know it.
SEEN: dict[str, tuple[str, ...]] = {
    "RuntimeError: [metal::malloc] Resource limit (499000) exceeded.": ("mlx-lm#831", "mlx-lm#1672", "mlx-lm#1332"),
    "SIGABRT: libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer "
    "execution failed: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)": (
        "exo#1620",
        "mlx#3830",
    ),
    "SIGABRT: (00000002:kIOGPUCommandBufferCallbackErrorTimeout)": ("exo#1620", "mlx#3830"),
    "SIGABRT: mlx::core::Event::wait()": ("exo#1804",),
    "SIGABRT: IOSurfaceSharedEvent waitUntilSignaledValue:timeoutMS:": ("exo#1804",),
    "terminate called after throwing an instance of 'std::runtime_error'\n  what():  [Event::wait] Timed out": (
        "exo#1804",
    ),
    "RANK_HUNG: no step for 12 s: 1 thread in fence_wait": ("mlx#3142", "mlx#3830", "mlx#4475"),
}
UNKNOWN = (
    "",
    "SIGKILL: killed from outside, perhaps by the system for want of memory",
    "SIGSEGV: Fatal Python error: Segmentation fault",
    "SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'",
    "[METAL] Command buffer execution failed: Insufficient Memory",
    "RuntimeError: [metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum",
    "RuntimeError: [Event::stream] Cannot access stream on invalid event.",
    "no step for 61 s: it is in step 7, compute",
)


@pytest.mark.parametrize(("text", "issues"), SEEN.items(), ids=[text[-40:] for text in SEEN])
def test_an_end_that_was_met_before(text: str, issues: tuple[str, ...]) -> None:
    found = match(f"words before it\n{text}\nand after it")
    assert found is not None
    assert found.seen_in == issues
    assert found.likely == f"{found.cause} ({', '.join(issues)})"


@pytest.mark.parametrize("text", UNKNOWN, ids=[text[:40] or "nothing" for text in UNKNOWN])
def test_an_end_of_which_nothing_is_known(text: str) -> None:
    assert match(text) is None


def test_every_signature_is_met_in_this_table() -> None:
    assert {found for text in SEEN if (found := match(text))} == set(SIGNATURES)


@pytest.mark.parametrize("found", SIGNATURES, ids=lambda found: found.cause)
def test_what_is_said_of_it_is_short_and_fits_into_a_sentence(found: Signature) -> None:
    assert len(found.likely) <= 120
    assert len(found.remedy) <= 120
    assert found.remedy and found.seen_in
    assert not found.likely.endswith(".") and not found.remedy.endswith(".")
