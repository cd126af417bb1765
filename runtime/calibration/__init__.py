"""How two cameras lie to each other in space and time: found from points, a board, or the scene itself.

`fit` turns point pairs into a `ufuser.runtime.alignment.Calibration`; `points` and `clicking` get them from people,
`board` from a chessboard, `refine` from what both cameras see. `offset` finds the time between them, and `check` shows
the result.
"""
