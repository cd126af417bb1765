"""Options of networks: what a recipe's [network] and a checkpoint say of a network beside its name."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a network. Without options it is the published one.

    Types and ranges are checked by `models.create`; what contradicts itself raises ValueError here.
    """
