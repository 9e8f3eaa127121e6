"""Does a map depend on what the network has learnt? Randomise it stage by stage, and compare (Adebayo et al. 2018).

From the output backwards one stage after the other loses its weights: every tensor keeps its numbers, in random order,
and its batch norms take the statistics of some images anew, so that activations stay alive. A map that still looks as
before when nothing learnt is left is decoration: it shows the picture or the architecture, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.errors import ShapeError
from ccan.explain.attention import attention_slots
from ccan.explain.faithfulness import cell_values
from ccan.explain.maps import Picture
from ccan.model.network import CCAN

SURVIVES = 0.5
"""Mean rank correlation with the map of the trained network from which on a map is called decoration."""
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
STAGES = ("heads", "I3", "CC2", "I2", "SS1", "I1")
"""From the output backwards."""

Maps = Callable[[CCAN, Tensor, Tensor], Mapping[str, Picture]]
"""Network, image and reference (1, 3, H, W) each → maps by name, as `image_maps`."""


@dataclass(frozen=True)
class Randomisation:
    """How much of one map is left after each stage.

    Attributes:
        correlation: stage → mean over images of Spearman's correlation of its cells with those of the trained network's
            map, when this stage and all behind it are random; NaN where no image's map has any contrast.
    """

    correlation: Mapping[str, float]

    @property
    def left(self) -> float:
        """The same when the whole network is random."""
        return list(self.correlation.values())[-1]

    @property
    def survives(self) -> bool:
        """Whether the map is decoration."""
        return self.left >= SURVIVES


def stages_of(model: CCAN) -> dict[str, list[nn.Module]]:
    """The modules of each stage, from the output backwards; stages that the network lacks are left out."""
    branches = [one for one in (model.global_branch, model.local_branch) if one is not None]
    trunks = [one for one in (model.global_branch, *model.streams) if one is not None]
    attention = attention_slots(model)
    found: dict[str, list[nn.Module]] = {
        "heads": [branch.head for branch in branches],
        "I3": [trunk.i3 for trunk in trunks],
        "CC2": [module for slot, module in attention.items() if slot != "SS1"],
        "I2": [trunk.i2 for trunk in trunks],
        "SS1": [module for slot, module in attention.items() if slot == "SS1"],
        "I1": [model.i1],
    }
    return {stage: found[stage] for stage in STAGES if found[stage]}


def shuffle_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Every parameter of a module keeps its numbers, in a random order."""
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def settle(model: CCAN, modules: Sequence[nn.Module], images: Tensor) -> None:
    """Give the batch norms of these modules the statistics of the images, (B, 3, H, W), and leave the others alone."""
    norms = [norm for module in modules for norm in module.modules() if isinstance(norm, _NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    with torch.no_grad():
        model(images)
    model.eval()


def randomisation_test(
    model: CCAN, images: Tensor, references: Tensor, maps: Maps, *, seed: int = 0
) -> dict[str, Randomisation]:
    """Maps of the trained network against those of networks with ever more random stages.

    Args:
        model: the trained network; it is copied, never changed.
        images: B prepared images, at least 2, which also settle the batch norms, (B, 3, H, W).
        references: another image for each, for maps of similarity, (B, 3, H, W).
        maps: what makes the maps.
        seed: of the order of the weights.

    Returns: map → its correlations.
    Raises: ShapeError unless there are as many references as images, and two at least.
    """
    if len(images) != len(references) or len(images) < 2:
        raise ShapeError(
            f"expected two images at least and a reference for each, got {len(images)} and {len(references)}"
        )
    generator = torch.Generator().manual_seed(seed)
    before = _all_maps(model, images, references, maps)
    network = copy.deepcopy(model).eval()
    found: dict[str, dict[str, float]] = {name: {} for name in before}
    random: list[nn.Module] = []
    for stage, modules in stages_of(network).items():
        for module in modules:
            shuffle_weights(module, generator)
        random += modules
        settle(network, random, images)
        after = _all_maps(network, images, references, maps)
        for name, cells in before.items():
            found[name][stage] = _mean_correlation(cells, after[name])
    return {name: Randomisation(correlation) for name, correlation in found.items()}


Cells = NDArray[np.float64]


def _all_maps(
    model: CCAN, images: Tensor, references: Tensor, maps: Maps
) -> dict[str, list[Cells]]:
    """Map → the cells of each image."""
    found: dict[str, list[Cells]] = {}
    for image, reference in zip(images, references, strict=True):
        for name, picture in maps(model, image[None], reference[None]).items():
            found.setdefault(name, []).append(cell_values(picture).ravel())
    return found


def _mean_correlation(before: Sequence[Cells], after: Sequence[Cells]) -> float:
    values = [rank_correlation(a, b) for a, b in zip(before, after, strict=True)]
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def rank_correlation(a: Cells, b: Cells) -> float:
    """Spearman's ρ with mean ranks for ties; NaN where either side has no contrast."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    centred = [values - values.mean() for values in ranks]
    lengths = [np.linalg.norm(values) for values in centred]
    return float(centred[0] @ centred[1] / (lengths[0] * lengths[1])) if all(lengths) else np.nan


def _mean_ranks(values: Cells) -> Cells:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
