"""The contact sheet."""

from __future__ import annotations

import numpy as np

from ufuser.runtime.contact_sheet import Layout, Row, contact_sheet


def test_sheet_holds_every_picture_in_its_place() -> None:
    layout = Layout(tile_width=100, gap=4, margin=10, head=30, caption=20, spacing=6)
    rows = [
        Row(
            (
                np.full((40, 50), 255 - row, np.uint8),
                np.full((40, 50, 3), 30000, np.uint16),
                np.full((40, 50, 3), 0.5, np.float32),
            ),
            f"{row} s",
        )
        for row in range(2)
    ]
    sheet = contact_sheet(("Infrared", "Visible", "Fused"), rows, layout)
    assert sheet.shape == (10 + 30 + 2 * (80 + 20) + 6 + 10, 10 + 3 * 100 + 2 * 4 + 10, 3)
    for row in range(2):
        top = 40 + row * 106
        tiles = [sheet[top : top + 80, left : left + 100] for left in (10, 114, 218)]
        assert [(int(t.min()), int(t.max())) for t in tiles] == [(255 - row,) * 2, (117,) * 2, (128,) * 2]
        assert sheet[top + 80 : top + 100].max() > 100, "the caption is written"
        assert (sheet[top - 1, :10] == sheet[0, 0]).all()
