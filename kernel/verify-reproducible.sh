#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Builds the kernel twice, without the cache, in two directories of different names, and compares every byte.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: kernel/verify-reproducible.sh x86_64|aarch64 [JOBS]" >&2
    exit 2
fi
arch=$1
jobs=${2:-$(nproc)}

work=$(mktemp -d "${TMPDIR:-/tmp}/bvmm-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$work/a" "$work/another-directory"
# The second build also has other parallelism, time zone, locale and user's name.
TMPDIR=$work/a "$here/build.sh" --arch "$arch" --no-cache --jobs "$jobs" --out "$work/first"
TMPDIR=$work/another-directory TZ=Asia/Tokyo LC_ALL=C.UTF-8 USER=somebody \
    "$here/build.sh" --arch "$arch" --no-cache --jobs "$((jobs + 1))" --out "$work/second"

cat "$work/first/kernel.json"
if diff -rq "$work/first" "$work/second"; then
    echo "reproducible: two builds of the $arch kernel gave the same bytes"
else
    echo "kernel/verify-reproducible.sh: two builds of the $arch kernel differ, see above" >&2
    exit 1
fi
