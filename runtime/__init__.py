"""Fusing, in pictures, files and live streams. Needs NumPy, OpenCV and one inference engine.

`ufuser.Fuser` and `ufuser.stream` are its public face.
"""
