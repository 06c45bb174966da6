# SPDX-License-Identifier: MIT OR Apache-2.0
# What bvmm-image, bvmm-run and the example runner share. Python 3.11, standard library only.
