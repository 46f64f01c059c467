"""Score as many made-up questions as VQAv2's validation set has, and say what that took.

python -m tests.commands.score.full_size
"""

import contextlib
import io
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from blip2cli.commands.score import score
from blip2cli.commands.score.options import ScoreSettings

QUESTIONS = 214_354
WORDS = [*["yes", "no"] * 40, *map(str, range(30)), *(f"{number} dogs, w{number}" for number in range(8000))]


def main() -> None:
    drawn = random.Random(1)
    annotations, results = [], []
    for key in range(QUESTIONS):
        common, rare = drawn.choice(WORDS), drawn.choice(WORDS)
        people = [
            {"answer": drawn.choice([common, common, rare]), "answer_confidence": "yes", "answer_id": number}
            for number in range(1, 11)
        ]
        kinds = {"question_type": "what is", "answer_type": drawn.choice(["other", "number", "yes/no"])}
        annotations.append({"question_id": key, "image_id": key // 5, "answers": people, **kinds})
        results.append({"question_id": key, "answer": f"the {common}"})
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "results.json"), Path(folder, "annotations.json")
        files[0].write_text(json.dumps(results))
        files[1].write_text(json.dumps({"annotations": annotations}))
        del annotations, results
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            score(ScoreSettings((str(files[0]),), (str(files[1]),)))
    seconds, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{QUESTIONS:,} questions in {seconds:.1f} s of processor time; peak with the making of them {peak >> 10:,} MiB"
    )


if __name__ == "__main__":
    main()
