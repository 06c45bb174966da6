#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Builds the bundled guest kernel from Debian's linux-source-6.1 and keeps the result in a cache outside the tree.

set -euo pipefail

readonly SOURCE_PACKAGE=linux-source-6.1
# For tests: another tarball of the same package.
readonly SOURCE_TARBALL=${BVMM_KERNEL_TARBALL:-/usr/src/$SOURCE_PACKAGE.tar.xz}
# What a guest kernel never compiles, and what would be most of the work of unpacking.
readonly UNUSED_SOURCE=('*/drivers/gpu/drm/amd/include/*' '*/drivers/gpu/drm/nouveau/*.[ch]' '*/sound/*.[ch]'
    '*/tools/testing/*' '*/Documentation/*.rst' '*/Documentation/*.yaml')

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

usage() {
    cat <<'END'
usage: kernel/build.sh --arch x86_64|aarch64 --out DIR [--cache DIR] [--no-cache] [--jobs N] [--key]

Leaves in DIR: vmlinux and bzImage (x86_64) or Image (aarch64), kernel.config, kernel.json.
  --arch ARCH   architecture of the guest
  --out DIR     made if it is missing; files in it are replaced one by one, each by a rename
  --cache DIR   default: $BVMM_CACHE, else $XDG_CACHE_HOME/bvmm, else ~/.cache/bvmm; kernels go below kernel/<key>
  --no-cache    neither look into the cache nor store there
  --jobs N      parallel jobs of make; default: the number of CPUs
  --key         print the key of the inputs and stop
END
}

fail() {
    printf 'kernel/build.sh: %s\n' "$*" >&2
    exit 1
}

# --- arguments -------------------------------------------------------------------------------------------------------

parse_arguments() {
    arch='' out='' jobs=$(nproc) use_cache=1 key_only=0
    cache=${BVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/bvmm}
    while [ $# -gt 0 ]; do
        case $1 in
        --no-cache) use_cache=0; shift; continue ;;
        --key) key_only=1; shift; continue ;;
        --help | -h) usage; exit 0 ;;
        --arch | --out | --cache | --jobs) [ $# -ge 2 ] || fail "$1 needs a value; see --help" ;;
        *) usage >&2; fail "unknown argument '$1'" ;;
        esac
        case $1 in
        --arch) arch=$2 ;;
        --out) out=$2 ;;
        --cache) cache=$2 ;;
        --jobs) jobs=$2 ;;
        esac
        shift 2
    done
    [[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs '$jobs': expected a number from 1"
    [ "$key_only" = 1 ] || [ -n "$out" ] || fail "--out DIR is missing; see --help"
}

# Per architecture: the name that make knows, make's targets, and the artefacts with where make leaves them.
select_arch() {
    case $arch in
    x86_64)
        make_arch=x86 make_targets=(vmlinux bzImage) artefacts=(vmlinux bzImage)
        debian_triplet=x86_64-linux-gnu
        ;;
    aarch64)
        make_arch=arm64 make_targets=(Image) artefacts=(Image)
        debian_triplet=aarch64-linux-gnu
        ;;
    *) fail "--arch '$arch': expected x86_64 or aarch64" ;;
    esac
    cross=''
    [ "$(uname -m)" = "$arch" ] || cross=$debian_triplet-
}

# --- what must be installed ------------------------------------------------------------------------------------------

check_tools() {
    local missing=() row
    local rows=("make make" "${cross}gcc gcc${cross:+-${debian_triplet//_/-}}" "gcc gcc" "flex flex" "bison bison"
        "bc bc" "xz xz-utils" "lz4 lz4" "perl perl" "flock util-linux" "cpio cpio" "sha256sum coreutils"
        "${cross}ld binutils${cross:+-${debian_triplet//_/-}}")
    for row in "${rows[@]}"; do
        command -v "${row% *}" >/dev/null || missing+=("${row#* }")
    done
    [ -f "$SOURCE_TARBALL" ] || missing+=("$SOURCE_PACKAGE")
    # objtool (return thunks, ORC tables) reads ELF files by libelf.
    [ "$arch" != x86_64 ] || [ -f /usr/include/libelf.h ] || missing+=(libelf-dev)
    [ ${#missing[@]} -eq 0 ] ||
        fail "cannot build the kernel: missing Debian packages; as root: apt-get install -y ${missing[*]}"
}

# The key names every input: what we say (script, fragments), what we build from and what we build with.
compute_key() {
    local source_version
    # shellcheck disable=SC2016  # the format is dpkg-query's
    source_version=$(dpkg-query -W -f '${Version}' "$SOURCE_PACKAGE" 2>/dev/null) ||
        source_version=$(sha256sum <"$SOURCE_TARBALL")
    key=$({
        echo "bvmm-kernel $arch $source_version"
        "${cross}gcc" --version | head -n 1
        "${cross}ld" --version | head -n 1
        lz4 --version
        sha256sum <"$here/build.sh"
        sha256sum <"$here/config/common.config"
        sha256sum <"$here/config/$arch.config"
    } | sha256sum | cut -c 1-24)
}

# --- the build -------------------------------------------------------------------------------------------------------

unpack_source() { # $1: directory to make
    local pattern excludes=()
    for pattern in "${UNUSED_SOURCE[@]}"; do
        excludes+=("--exclude=$pattern")
    done
    mkdir -p "$1"
    tar -C "$1" --strip-components=1 --no-same-owner -xJf "$SOURCE_TARBALL" "${excludes[@]}"
}

kernel_make() { # $@: arguments of make; runs in the unpacked source
    env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u KCFLAGS -u CFLAGS -u LDFLAGS LC_ALL=C TZ=UTC \
        make -s -C "$source_dir" -j "$jobs" ARCH="$make_arch" CROSS_COMPILE="$cross" \
        KBUILD_BUILD_USER=bvmm KBUILD_BUILD_HOST=bvmm KBUILD_BUILD_VERSION=1 \
        KBUILD_BUILD_TIMESTAMP="$timestamp" KCFLAGS="-ffile-prefix-map=$source_dir/=" "$@"
}

# kconfig drops without a word what it does not know or whose dependencies are not met.
check_config() { # $1: .config, then fragments
    local final=$1 line option bad=0
    shift
    while IFS= read -r line; do
        case $line in
        CONFIG_*=*)
            grep -qxF -- "$line" "$final" && continue
            option=${line%%=*}
            ;;
        '# CONFIG_'*' is not set')
            option=${line#\# }
            option=${option%% *}
            grep -q -- "^$option=" "$final" || continue
            ;;
        *) continue ;;
        esac
        printf 'kernel/build.sh: "%s" did not take; the final configuration has: %s\n' "$line" \
            "$(grep -E "^$option=|^# $option is" "$final" || echo "no $option")" >&2
        bad=1
    done < <(cat "$@")
    [ "$bad" = 0 ] || fail "the fragments ask for what this kernel does not do; see above"
}

# The names "git grep" and the readers of a report meet: version, sizes, digests.
write_json() { # $1: directory with the artefacts
    local name separator=''
    {
        printf '{\n  "version": "%s",\n  "arch": "%s",\n' "$release" "$arch"
        printf '  "source": "%s",\n  "key": "%s",\n  "artefacts": [\n' "$SOURCE_PACKAGE" "$key"
        for name in "${artefacts[@]}"; do
            printf '%s    {"name": "%s", "size_bytes": %d, "sha256": "%s"}' "$separator" "$name" \
                "$(stat -c %s "$1/$name")" "$(sha256sum <"$1/$name" | cut -d ' ' -f 1)"
            separator=$',\n'
        done
        printf '\n  ]\n}\n'
    } >"$1/kernel.json"
}

build() { # $1: directory that receives the artefacts
    local result=$1 common=$here/config/common.config special=$here/config/$arch.config
    source_dir=$work/source
    printf 'kernel/build.sh: building the %s kernel, key %s (some minutes)\n' "$arch" "$key" >&2
    unpack_source "$source_dir"
    # The package's own date, so that the kernel's version string depends on nothing else.
    timestamp=$(LC_ALL=C TZ=UTC date -d "@$(stat -c %Y "$source_dir/Makefile")")
    cat "$common" "$special" >"$work/fragments.config"
    kernel_make allnoconfig KCONFIG_ALLCONFIG="$work/fragments.config" >/dev/null
    check_config "$source_dir/.config" "$common" "$special"
    kernel_make "${make_targets[@]}" >&2
    release=$(kernel_make kernelrelease)
    mkdir -p "$result"
    case $arch in
    x86_64)
        "${cross}objcopy" --strip-all "$source_dir/vmlinux" "$result/vmlinux"
        cp "$source_dir/arch/x86/boot/bzImage" "$result/bzImage"
        ;;
    aarch64) cp "$source_dir/arch/arm64/boot/Image" "$result/Image" ;;
    esac
    cp "$source_dir/.config" "$result/kernel.config"
    write_json "$result"
    chmod 0644 "$result"/*
}

# --- cache and delivery ----------------------------------------------------------------------------------------------

deliver() { # $1: directory with the artefacts
    local name
    mkdir -p "$out"
    # kernel.json comes last: it vouches for the others.
    for name in "${artefacts[@]}" kernel.config kernel.json; do
        cp "$1/$name" "$out/.$name.$$"
        mv -f "$out/.$name.$$" "$out/$name"
    done
}

cached_build() {
    local entry=$cache/kernel/$key
    mkdir -p "$cache/kernel"
    # Two builds of one key at a time would do the same work twice: the second waits and finds the entry.
    exec 9>"$cache/kernel/.lock-$key"
    flock 9
    if [ ! -f "$entry/kernel.json" ]; then
        local fresh=$cache/kernel/.new-$key.$$
        rm -rf "$cache/kernel/.new-$key".* "$entry"
        build "$fresh"
        mv "$fresh" "$entry"
    fi
    flock -u 9
    deliver "$entry"
}

main() {
    umask 022
    parse_arguments "$@"
    select_arch
    check_tools
    compute_key
    if [ "$key_only" = 1 ]; then
        echo "$key"
        return
    fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/bvmm-kernel.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ "$use_cache" = 1 ]; then
        cached_build
    else
        build "$work/result"
        deliver "$work/result"
    fi
}

main "$@"
