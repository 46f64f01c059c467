"""Captions: the figures of the COCO caption evaluation, through pycocoevalcap.

Nothing is downloaded: SPICE's models are used if the user has put them there.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blip2cli.commands.score import java
from blip2cli.commands.score.records import Figure, Pair
from blip2cli.errors import Blip2Error, UsageError

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice")

LINE_BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

Tokens = dict[int, list[str]]
"""Number of a pair → its tokenized texts, as pycocoevalcap takes them."""


class CaptionMetrics:
    """Measures captions. Without `asked`: every metric that can be computed here; `left_out` has the others."""

    def __init__(self, pairs: Sequence[Pair], asked: Sequence[str] | None) -> None:
        if find_spec("pycocoevalcap") is None:
            raise UsageError(
                "captions are scored by pycocoevalcap, which is not installed",
                "Install it: pip install 'blip2cli[score]'",
            )
        if not java.installed():
            raise UsageError(
                "captions are scored with Java, and there is none: the COCO evaluation's tokenizer is written in it",
                "Install it (apt install default-jre-headless), or use --metrics exact_match.",
            )
        self.names = [name for name in METRICS if asked is None or name in asked]
        self.asked = asked
        self.left_out: dict[str, str] = {}
        if "spice" in self.names and (missing := _spice_lacks()):
            self._leave_out("spice", missing)
        texts = (text for pair in pairs for text in (pair.prediction.text, *pair.reference.texts))
        self.tokens = tokenized(dict.fromkeys(texts))

    def measure(self, pairs: Sequence[Pair]) -> dict[str, Figure]:
        """A figure for each metric, of these pairs as if there were no others; an error is an empty caption."""
        results = {at: [self.tokens[pair.prediction.text]] for at, pair in enumerate(pairs)}
        references = {at: [self.tokens[text] for text in pair.reference.texts] for at, pair in enumerate(pairs)}
        figures: dict[str, Figure] = {}
        for measured in (self._bleu, self._meteor, self._rouge, self._cider, self._spice):
            figures |= measured(references, results)
        return {name: figures[name] for name in self.names if name in figures}

    def _bleu(self, references: Tokens, results: Tokens) -> dict[str, Figure]:
        if not any(name.startswith("bleu") for name in self.names):
            return {}
        from pycocoevalcap.bleu.bleu import Bleu

        overall, rows = Bleu(4).compute_score(references, results, verbose=0)
        return {f"bleu_{n}": _figure(overall[n - 1], rows[n - 1]) for n in range(1, 5)}

    def _rouge(self, references: Tokens, results: Tokens) -> dict[str, Figure]:
        if "rouge_l" not in self.names:
            return {}
        from pycocoevalcap.rouge.rouge import Rouge

        return {"rouge_l": _figure(*Rouge().compute_score(references, results))}

    def _cider(self, references: Tokens, results: Tokens) -> dict[str, Figure]:
        if "cider" not in self.names:
            return {}
        from pycocoevalcap.cider.cider import Cider

        return {"cider": _figure(*Cider().compute_score(references, results))}

    def _meteor(self, references: Tokens, results: Tokens) -> dict[str, Figure]:
        if "meteor" not in self.names:
            return {}
        try:
            return {"meteor": _figure(*_meteor_scores(references, results))}
        except Blip2Error as error:
            self._leave_out("meteor", error.message)
            return {}

    def _spice(self, references: Tokens, results: Tokens) -> dict[str, Figure]:
        if "spice" not in self.names:
            return {}
        try:
            scores = _spice_scores(references, results)
        except Blip2Error as error:
            self._leave_out("spice", error.message)
            return {}
        return {"spice": _figure(sum(scores) / len(scores), scores)}

    def _leave_out(self, name: str, reason: str) -> None:
        if self.asked is not None:
            raise UsageError(f"{name} cannot be computed: {reason}", "Leave it out of --metrics.")
        self.left_out[name] = reason
        self.names.remove(name)


def tokenized(texts: Iterable[str]) -> dict[str, str]:
    """Each text in lower case, in words with spaces between, without punctuation, as the COCO evaluation makes it.

    The behaviour is that of pycocoevalcap's PTBTokenizer, which writes into its own folder, and where a text has an odd
    line break gives each image the text of another; here a line break is a space.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    distinct = list(texts)
    jar = _package() / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = java.run(program, "\n".join(LINE_BREAKS.sub(" ", text) for text in distinct)).split("\n")
    if len(lines) != len(distinct):
        raise Blip2Error(
            f"the tokenizer made {len(lines):,} lines of {len(distinct):,} texts", "This should not happen; report it."
        )
    return {
        text: " ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS)
        for text, line in zip(distinct, lines, strict=True)
    }


def _package() -> Path:
    spec = find_spec("pycocoevalcap")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def _meteor_scores(references: Tokens, results: Tokens) -> tuple[float, list[float]]:
    """METEOR of all pairs together, and of every one. Raises Blip2Error if its process dies."""
    from pycocoevalcap.meteor.meteor import Meteor

    with java.fixed_locale():
        meteor = Meteor()
    process = meteor.meteor_p
    try:
        overall, rows = meteor.compute_score(references, results)
        return overall, rows
    except (OSError, ValueError):  # a closed pipe, or an answer that is no number
        process.kill()
        complaint = java.complaint_in(process.stderr.read())
        raise Blip2Error(f"its Java program failed: {complaint}", "Check that it has 2 GB of memory.") from None
    finally:
        if meteor.lock.locked():
            meteor.lock.release()  # its destructor would wait for this for ever
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):  # what was not sent to a process that is gone
                pipe.close()


def _spice_lacks() -> str | None:
    """The file that SPICE needs and that is missing; pycocoevalcap itself would download it."""
    folder = _package() / "spice" / "lib"
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        if not (folder / name).exists():
            return f"{name} is not in {folder}, and this command downloads nothing"
    return None


def _spice_scores(references: Tokens, results: Tokens) -> list[float]:
    """SPICE's F of every pair, NaN where it gives none. Raises Blip2Error."""
    entries = [{"image_id": at, "test": results[at][0], "refs": texts} for at, texts in references.items()]
    with tempfile.TemporaryDirectory() as folder:
        input_file, made, cache = (os.path.join(folder, name) for name in ("in.json", "out.json", "cache"))
        os.mkdir(cache)
        Path(input_file).write_text(json.dumps(entries), encoding="utf-8")
        jar = str(_package() / "spice" / "spice-1.0.jar")
        java.run(["-Xmx8G", "-jar", jar, input_file, "-cache", cache, "-out", made, "-subset", "-silent"])
        scored: Mapping[int, Any] = {entry["image_id"]: entry["scores"] for entry in json.loads(Path(made).read_text())}
    return [float(scored[at]["All"]["f"]) for at in references]


def _figure(overall: float, rows: Iterable[float]) -> Figure:
    return Figure(100 * float(overall), [100 * float(row) for row in rows])
