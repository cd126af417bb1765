"""Calibration of two cameras in space and time, from points, a board, or the scene itself.

`fit` turns point pairs into a `ufuser.runtime.alignment.Calibration`. `points` and `clicking` read the pairs, `board`
finds them on a chessboard, `refine` registers the edges of a scene. `offset` finds the time between both cameras, and
`check` draws a calibration.
"""
