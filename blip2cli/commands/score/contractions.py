"""Contractions that the VQA evaluation corrects.

The data of vqaEvaluation/vqaEval.py in the VQA API of Agrawal et al. (github.com/GT-Vision-Lab/VQA), without the
entries that do nothing: those with a capital, because the text is in lower case by then, and those that map to
themselves.
"""

from __future__ import annotations

_RIGHT = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at, letter in enumerate(word) if letter == "'"]


CONTRACTIONS = {wrong: right for right in _RIGHT for wrong in _without_one_apostrophe(right)} | {
    "somebody'd": "somebodyd"  # the one in the other direction, as in the original
}
"""A word without one apostrophe → the word with it."""
