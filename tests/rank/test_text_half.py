"""A rank computes without mlx-lm's text half."""

import subprocess
import sys

LEAVES_OUT = "from thunderline.rank import text_half; text_half.leave_out()"


def told(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_engine_is_imported_without_it() -> None:
    code = f"{LEAVES_OUT}; import thunderline.rank.engine, thunderline.rank.load, thunderline.rank.splits, sys; "
    parts = "[name for name in sys.modules if name.split('.')[0] in ('transformers', 'tokenizers')]"
    assert told(f"{code}print({parts})") == "['transformers']"


def test_who_needs_it_all_the_same_is_told() -> None:
    last = told(f"{LEAVES_OUT}; import mlx_lm.utils; mlx_lm.utils.TokenizerWrapper()")
    where = "mlx_lm.tokenizer_utils.TokenizerWrapper"
    assert last == f"RuntimeError: {where} is left out of a rank, which knows only token ids"


def test_a_process_that_has_all_of_it_keeps_it() -> None:
    assert told(f"import mlx_lm; {LEAVES_OUT}; import transformers; print(bool(transformers.__file__))") == "True"
