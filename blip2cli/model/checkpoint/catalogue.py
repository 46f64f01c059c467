"""The checkpoints that BLIP-2's authors have published, with their sizes: the source of
the table in docs/models.md."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.model.checkpoint.size import WeightCounts
from blip2cli.model.families import Family, family_of_name


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint; `language_model` is None for those with retrieval heads
    instead.

    `weights` are counted from the architecture: ViT-g/14 without its last layer, a
    Q-Former of BERT-base's size with 32 query tokens, and the language model. A test
    counts them again.
    """

    name: str
    language_model: str | None
    image_side: int
    weights: WeightCounts

    @property
    def family(self) -> Family | None:
        """The language model's family; None for those with retrieval heads."""
        return family_of_name(self.language_model)


def _weights(linear: int, other: int) -> WeightCounts:
    return WeightCounts(qformer=105_162_240, linear=linear, other=other)


def _retrieval_weights(other: int) -> WeightCounts:
    """With the Q-Former's layers that read text."""
    return WeightCounts(qformer=161_849_856, linear=984_417_792, other=other)


PUBLISHED = (
    PublishedCheckpoint("Salesforce/blip2-opt-2.7b", "OPT-2.7B", 224, _weights(3_502_571_520, 137_028_096)),
    PublishedCheckpoint("Salesforce/blip2-opt-6.7b", "OPT-6.7B", 224, _weights(7_429_619_712, 218_087_424)),
    PublishedCheckpoint("Salesforce/blip2-flan-t5-xl", "Flan-T5-XL", 224, _weights(3_769_305_088, 67_979_264)),
    PublishedCheckpoint("Salesforce/blip2-flan-t5-xxl", "Flan-T5-XXL", 224, _weights(11_990_405_120, 134_029_312)),
    PublishedCheckpoint("Salesforce/blip2-opt-2.7b-coco", "OPT-2.7B", 364, _weights(3_502_571_520, 137_619_456)),
    PublishedCheckpoint("Salesforce/blip2-opt-6.7b-coco", "OPT-6.7B", 364, _weights(7_429_619_712, 218_678_784)),
    PublishedCheckpoint("Salesforce/blip2-flan-t5-xl-coco", "Flan-T5-XL", 364, _weights(3_769_305_088, 68_570_624)),
    PublishedCheckpoint("Salesforce/blip2-itm-vit-g", None, 224, _retrieval_weights(25_763_842)),
    PublishedCheckpoint("Salesforce/blip2-itm-vit-g-coco", None, 364, _retrieval_weights(26_355_202)),
)
