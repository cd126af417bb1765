"""Options of networks, as in [network] of a recipe and in the metadata of a checkpoint."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a network; the defaults give the published one, or the shipped one.

    `models.create` checks types and ranges; options that contradict each other raise ValueError here.
    """
