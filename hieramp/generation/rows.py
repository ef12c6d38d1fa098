"""Which rows are computed: images that are the same so far share one, and an earlier drawing may lend those it has.

Nothing here draws: this layer only chooses the rows that the next scale starts from.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from hieramp.devices import to_device_async
from hieramp.generation.memory import Prefix
from hieramp.generation.request import Request
from hieramp.generation.sampling import noise_keys
from hieramp.generation.scale import ScaleResult, ScaleSettings
from hieramp.generation.step import ComputedRows, Step, pick_rows
from hieramp.var.model import VAR, Generation
from hieramp.vqvae.model import VQVAE


class SharedRows:
    """The U rows being computed for the images of a request, and their state so far.

    `groups` names for every image the first image of those it shares a row with; `firsts` are these, one a row.
    """

    def __init__(self, vqvae: VQVAE, var: VAR, request: Request) -> None:
        self.vqvae, self.var, self.request = vqvae, var, request
        self.device, self.use_cfg = var.pos_start.device, request.uses_cfg(var)
        self.keys_B2 = noise_keys(request.labels, request.seeds, self.device)
        self._set_groups(request.group_by_prefix(0, var))
        self.all_apart = len(self.firsts) == len(self.groups)  # where no two images agree at first, none ever will

    def _set_groups(self, groups: list[int]) -> None:
        self.groups, self.firsts = groups, sorted(set(groups))
        row = {first: i for i, first in enumerate(self.firsts)}
        self.row_of_image = [row[group] for group in groups]
        self.keys_U2 = pick_rows(self.keys_B2, self.firsts)

    def labels(self) -> Tensor:
        """Of the rows, (U,)."""
        return to_device_async(torch.tensor([self.request.labels[first] for first in self.firsts]), self.device)

    @cached_property
    def max_rows(self) -> int:
        """How many rows (both halves) there will be in the end."""
        groups = self.groups if self.all_apart else self.request.group_by_prefix(len(self.var.scales) - 1, self.var)
        return (1 + self.use_cfg) * len(set(groups))

    @cached_property
    def state(self) -> Generation:
        """KV cache and class embeddings of the rows: conditional, then with guidance unconditional."""
        labels_U = self.labels()
        null_U = torch.full_like(labels_U, self.var.null_label)
        return self.var.begin(torch.cat([labels_U, null_U]) if self.use_cfg else labels_U, self.max_rows)

    @cached_property
    def f_hat(self) -> Tensor:
        """The sum of the scales so far, (U, code_dim, N, N)."""
        side = self.vqvae.config.sides[-1]
        return torch.zeros(len(self.firsts), self.vqvae.config.code_dim, side, side, device=self.device)

    def split(self, scale: int) -> None:
        """Give images that part at this scale rows of their own, copied from the row that they shared."""
        if self.all_apart:
            return
        groups = self.request.group_by_prefix(scale, self.var)
        if groups == self.groups:
            return
        row_of_image, num_before = self.row_of_image, len(self.firsts)
        self._set_groups(groups)
        parents = to_device_async(torch.tensor([row_of_image[first] for first in self.firsts]), self.device)
        self.state.select(self._both(parents, num_before), self.var.scales.spans[scale].start)
        self.f_hat = self.f_hat[parents]

    def _both(self, rows: Tensor, num_rows: int) -> Tensor:
        """These rows of the conditional half and the same of the unconditional one."""
        return torch.cat([rows, rows + num_rows]) if self.use_cfg else rows

    def settings(self, scale: int) -> ScaleSettings:
        amplifications = tuple(self.request.amplifications[first] for first in self.firsts)
        how = self.request.sampling, self.request.return_attention
        return ScaleSettings(self.var, scale, self.use_cfg, *how, amplifications)

    def prefix_of_scale(self, scale: int) -> Tensor | None:
        """The tokens that the rows must take at this scale, (U, n²); None where they are drawn."""
        prefix_tokens = self.request.prefix_tokens
        if not prefix_tokens or scale >= len(prefix_tokens[0]):
            return None
        return to_device_async(torch.tensor([prefix_tokens[first][scale] for first in self.firsts]), self.device)

    def step(self, settings: ScaleSettings, result: ScaleResult, prefix_UL: Tensor | None) -> Step:
        """The scale of the rows as one of the images."""
        computed = ComputedRows(self.vqvae, settings, result, self.keys_U2, is_drawn=prefix_UL is None)
        return Step(settings.scale, self.var.scales.sides[settings.scale], computed, self.row_of_image)

    def resume_from(self, prefix: Prefix | None) -> list[Step]:
        """Take over the rows of a drawing that began alike; returns its steps so far, for these images."""
        num_scales, sources = prefix.shared_with(self.request, self.var) if prefix else (0, [])
        if prefix is None or not num_scales:
            return []
        self._set_groups(self.request.group_by_prefix(num_scales - 1, self.var))
        rows = to_device_async(
            torch.tensor([prefix.row_of_image[sources[first]] for first in self.firsts]), self.device
        )
        num_before = len(prefix.state.conditions.class_BC) // (1 + self.use_cfg)
        self.state = Generation(self.var.cache(self.max_rows), prefix.state.conditions)
        self.state.take(prefix.state, self._both(rows, num_before), self.var.scales.spans[num_scales - 1].stop)
        steps = [
            replace(step, row_of_image=[step.row_of_image[source] for source in sources])
            for step in prefix.steps[:num_scales]
        ]
        latest = steps[-1]
        self.f_hat = pick_rows(latest.rows.result.f_hat, [latest.row_of_image[first] for first in self.firsts])
        return steps

    def prefix(self, steps: Sequence[Step]) -> Prefix:
        """The drawing as far as it came, for others to go on from."""
        return Prefix(self.request, tuple(steps), self.state, tuple(self.row_of_image))
