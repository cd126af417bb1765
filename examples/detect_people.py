"""Feed a detector with fused frames: find people in a stream and print where they are.

    python examples/detect_people.py                                   # two simulated cameras
    python examples/detect_people.py --ir v4l2:///dev/video0?format=Y16 --vi v4l2:///dev/video2
    python examples/detect_people.py --out found.png --frames 100

`hog` is OpenCV's pedestrian detector (Dalal and Triggs 2005, weights built in; OpenCV 4). OpenCV 5 no longer has
it: `motion` finds what moves before a camera that stands still (Zivkovic's mixture of Gaussians). A network takes
their place as one more `Detector`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import ufuser

Box = tuple[int, int, int, int]
"""Left, top, width, height."""
Detector = Callable[[NDArray[np.uint8]], Sequence[Box]]
"""Takes a fused picture, H×W×3 uint8 BGR."""

NOT_BOTH = {"ir-lost", "vi-lost", "stale"}
"""Flags of pictures that were not fused from two cameras."""


def hog() -> Detector:
    """People, by the shape of their outline. Raises SystemExit where OpenCV has it no more."""
    if not hasattr(cv2, "HOGDescriptor"):
        raise SystemExit(
            f"OpenCV {cv2.__version__} has no HOG detector: expected OpenCV 4, or --detector motion"
        )
    opencv4: Any = cv2  # the stubs of OpenCV 5 know it no more
    descriptor = opencv4.HOGDescriptor()
    descriptor.setSVMDetector(opencv4.HOGDescriptor_getDefaultPeopleDetector())

    def detect(image: NDArray[np.uint8]) -> Sequence[Box]:
        boxes, scores = descriptor.detectMultiScale(image, winStride=(8, 8), padding=(8, 8), scale=1.05)
        sure = [box for box, score in zip(boxes, np.ravel(scores), strict=True) if score > 0.5]
        return [_box(box) for box in sure]

    return detect


def motion() -> Detector:
    """What moves, by the difference from a background that is learned."""
    background = cv2.createBackgroundSubtractorMOG2(history=200, varThreshold=40, detectShadows=False)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))

    def detect(image: NDArray[np.uint8]) -> Sequence[Box]:
        moving = cv2.morphologyEx(
            background.apply(cv2.GaussianBlur(image, (0, 0), 1.5)), cv2.MORPH_OPEN, kernel
        )
        moving = cv2.dilate(moving, kernel, iterations=2)
        contours, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        smallest = image.shape[0] * image.shape[1] / 1500
        boxes = [_box(cv2.boundingRect(c)) for c in contours if cv2.contourArea(c) >= smallest]
        return boxes if len(boxes) < 30 else []  # everything moves: the light has changed

    return detect


def _box(sides: Sequence[int]) -> Box:
    left, top, width, height = map(int, sides)
    return left, top, width, height


def main(argv: Sequence[str] | None = None) -> int:
    """Run the detector until the frames asked for are done."""
    parser = argparse.ArgumentParser(description="Detect people in a fused stream.")
    parser.add_argument("--ir", default="sim://thermal?size=640x480&fps=9")
    parser.add_argument("--vi", default="sim://visible?size=640x480&fps=9")
    parser.add_argument("--detector", choices=("hog", "motion"), default="motion")
    parser.add_argument("--model", default="ufuser")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--out", help="write the last picture with its boxes there, .png")
    args = parser.parse_args(argv)
    detect = hog() if args.detector == "hog" else motion()
    seen = 0
    for fused in ufuser.stream(ir=args.ir, vi=args.vi, model=args.model, engine=args.engine):
        # A picture of one camera alone is still worth looking at; an old one is not.
        if "stale" in fused.flags:
            continue
        boxes = detect(fused.image)
        state = ", ".join(sorted(fused.flags & NOT_BOTH)) or "both cameras"
        places = " ".join(f"{w}x{h}+{x}+{y}" for x, y, w, h in boxes)
        print(f"{fused.timestamp:.3f} s, {state}: {len(boxes)} found {places}", flush=True)
        seen += 1
        if seen >= args.frames:
            if args.out:
                marked = fused.image.copy()
                for x, y, w, h in boxes:
                    cv2.rectangle(marked, (x, y), (x + w, y + h), (80, 220, 255), 2)
                cv2.imwrite(args.out, marked)
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
