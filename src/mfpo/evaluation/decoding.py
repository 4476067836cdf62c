"""The decoding methods by name, with their settings as the user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from mfpo.errors import UserError, nearest
from mfpo.evaluation.config import Decoding
from mfpo.records import Noise, Schedule, row_seed

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mfpo.models.generation import Decoder
    from mfpo.models.load import VLM


@dataclass(frozen=True, slots=True)
class VcdOptions:
    """Visual contrastive decoding; defaults of the paper and its code.

    Attributes:
        alpha: Strength of the contrast.
        beta: Share of the largest probability that a token needs to be considered.
        noise_step: Diffusion step of the noised image, 0 to 999.
        noise_schedule: Diffusion schedule, ``vcd`` or ``ddpm-linear``.
    """

    alpha: float = 1.0
    beta: float = 0.1
    noise_step: int = 500
    noise_schedule: Schedule = "vcd"


@dataclass(frozen=True, slots=True)
class OperaOptions:
    """OPERA; defaults of its code, see [`mfpo.models.decoding.opera`]."""

    num_beams: int = 5
    scale_factor: float = 50.0
    threshold: int = 15
    num_attn_candidates: int = 5
    penalty_weights: float = 1.0


_RANGES = {
    "alpha": (0.0, 100.0),
    "beta": (0.0, 1.0),
    "num_beams": (2, 64),
    "scale_factor": (1e-6, 1e6),
    "threshold": (1, 10**6),
    "num_attn_candidates": (2, 64),
    "penalty_weights": (0.0, 1e6),
}


def decoding_options(name: Decoding, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a decoding, the given ones checked and the others at their defaults.

    Raises:
        UserError: An option is unknown, of the wrong type or out of range.
    """
    if name == "greedy":
        if given:
            raise UserError("greedy decoding has no options", where=f"--decoding_options {next(iter(given))}")
        return {}
    kind = VcdOptions if name == "vcd" else OperaOptions
    known = {item.name: item.default for item in fields(kind)}
    for option, value in given.items():
        where = f"--decoding_options {option}={value}"
        if option not in known:
            raise UserError(f"{name} has no such option", where=where, fix=nearest(option, known))
        wanted = type(known[option])
        fits = isinstance(value, (int, float) if wanted is float else wanted) and not isinstance(value, bool)
        low, high = _RANGES.get(option, (None, None))
        if not fits or (low is not None and high is not None and not low <= value <= high):
            told = f" from {low:g} to {high:g}" if low is not None and high is not None else ""
            raise UserError(f"{wanted.__name__}{told} is needed", where=where)
    options = asdict(kind(**given))
    if name == "vcd":
        from mfpo.preferences.noise import noise_level

        noise_level(options["noise_schedule"], options["noise_step"])
    return options


def make_decoder(name: Decoding, given: Mapping[str, Any], seed: int = 0) -> Decoder | None:
    """The decoder of a name; None for plain decoding.

    Args:
        name: The method.
        given: Its options, see [`decoding_options`].
        seed: Seed of the noise of ``vcd``; a row's noise follows from it and from the row's id.

    Raises:
        UserError: See [`decoding_options`].
    """
    options = decoding_options(name, given)
    if name == "vcd":
        from mfpo.models.decoding.contrast import ContrastiveDecoding

        vcd = VcdOptions(**options)
        noise = Noise(scope="global", schedule=vcd.noise_schedule, step=vcd.noise_step)
        return ContrastiveDecoding(NoisedImages(noise, seed), vcd.alpha, vcd.beta)
    if name == "opera":
        from mfpo.models.decoding.opera import OperaDecoding

        return OperaDecoding(**options)
    return None


@dataclass(frozen=True, slots=True)
class NoisedImages:
    """Pictures with diffusion noise all over, drawn in the vision tower's input space.

    Attributes:
        noise: Schedule and step.
        seed: With a row's id it gives the row's noise, the same in any batch.
    """

    noise: Noise
    seed: int = 0

    def __call__(self, vlm: VLM, images: Sequence[Image], ids: Sequence[str]) -> dict[str, Tensor]:
        """The image processor's output for the noised pictures."""
        from dataclasses import replace

        from mfpo.models.vision import batch_images
        from mfpo.preferences.rejected import rejected_inputs

        rows = [
            rejected_inputs(
                vlm.image_processor, image, (), replace(self.noise, seed=row_seed(self.seed, name))
            )
            for image, name in zip(images, ids, strict=True)
        ]
        return batch_images([row.inputs for row in rows])
