"""mlx-lm's own answers, in a process of its own: `python reference.py FOLDER < questions.json > answers.json`.

A question is {"prompt_token_ids": [...], "max_tokens": n}; an answer {"token_ids": [...], "text": "..."}, greedy.
"""

import json
import sys
from pathlib import Path

from thunderline.rank import blas

blas.load()

from mlx_lm import stream_generate  # noqa: E402  (the BLAS has to come before mlx)
from mlx_lm.utils import load  # noqa: E402


def main() -> None:
    model, tokenizer = load(str(Path(sys.argv[1])))
    answers = []
    for question in json.load(sys.stdin):
        made = list(stream_generate(model, tokenizer, question["prompt_token_ids"], max_tokens=question["max_tokens"]))
        answers.append({"token_ids": [piece.token for piece in made], "text": "".join(piece.text for piece in made)})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
