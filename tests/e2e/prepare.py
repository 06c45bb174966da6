# SPDX-License-Identifier: MIT OR Apache-2.0
"""Make what the scenarios' jobs name: kernels and images, whole and broken ones."""

import os
import shutil


def prepare(place):
    for directory in ("images", "kernel"):
        os.makedirs(os.path.join(place.base, directory), exist_ok=True)
    for name in ("bench", "tiny"):
        shutil.copy(os.path.join(place.images, f"{name}.squashfs"), os.path.join(place.base, "images"))
