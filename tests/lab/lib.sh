# SPDX-License-Identifier: MIT OR Apache-2.0
# What the lab's scripts and the image recipes share: the cache, locks, and trees of files from Debian packages.
# shellcheck shell=bash

# What decides the bytes of a tree or an image, beside the packages: for the keys of the cache.
# shellcheck disable=SC2034  # read by the scripts that source this file
readonly LAB_TREE_FUNCTIONS=(lab_extract lab_finish_tree lab_compile_python lab_trim_tree lab_squash)

# lab_fail MESSAGE...: the caller's name, the message, status $LAB_FAIL_STATUS (1 unless set).
lab_fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "${LAB_FAIL_STATUS:-1}"
}

lab_say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# lab_cache_dir: where everything that is slow to make is kept, outside the tree.
lab_cache_dir() {
    printf '%s\n' "${BVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/bvmm}"
}

# lab_need COMMAND PACKAGE [COMMAND PACKAGE]...: fails once, naming every Debian package that is missing.
lab_need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || [ -e "$1" ] || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] ||
        lab_fail "missing Debian packages; as root: apt-get install -y --no-install-recommends ${missing[*]}"
}

# lab_debian_arch ARCH: Debian's name of an architecture.
lab_debian_arch() {
    case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) lab_fail "architecture '$1': expected x86_64 or aarch64" ;;
    esac
}

# lab_sources: the machine's own Debian sources, one "deb URI SUITE COMPONENT" a line.
lab_sources() {
    # shellcheck disable=SC2016  # the format is apt's
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk '$1 == "Debian" { print "deb", $2, $3, $4 }' | sort -u
}

# lab_versions PACKAGE...: the versions that apt would install, for the keys of the cache.
lab_versions() {
    apt-cache policy "$@" 2>/dev/null | grep -E '^[^ ]|Candidate' || true
}

# lab_extract ARCH DIR PACKAGE...: unpacks packages and what they depend on into DIR, which must not exist. No maintainer
# script runs, so that any architecture can be unpacked on any other.
lab_extract() {
    local arch=$1 dir=$2 sources include
    shift 2
    lab_need mmdebstrap mmdebstrap
    sources=$(lab_sources)
    [ -n "$sources" ] || lab_fail "apt knows no Debian source; as root: apt-get update"
    include=$(IFS=,; echo "$*")
    # Owners and modes of the files are those of the packages only for root.
    [ "$(id -u)" = 0 ] || lab_fail "unpacking packages needs root"
    printf '%s\n' "$sources" | mmdebstrap --quiet --variant=extract --mode=root --format=directory \
        --architectures="$(lab_debian_arch "$arch")" --include="$include" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
        --skip=check/qemu --skip=cleanup/reproducible '' "$dir" - >&2 ||
        lab_fail "unpacking ${include//,/, } failed; see above"
    lab_finish_tree "$dir"
}

# lab_finish_tree DIR: what maintainer scripts would have made and programs miss.
lab_finish_tree() {
    local dir=$1 pair
    rm -rf "$dir"/tmp/* "$dir"/var/lib/apt/lists/* "$dir"/var/cache/apt/* "$dir"/var/log/* "$dir"/etc/apt/sources.list
    mkdir -p "$dir"/{dev,proc,sys,run,tmp,root,etc,mnt,opt,srv,home,var/tmp,usr/local/bin}
    chmod 1777 "$dir/tmp" "$dir/var/tmp"
    [ -e "$dir/etc/passwd" ] || printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' \
        'daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin' \
        'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin' >"$dir/etc/passwd"
    [ -e "$dir/etc/group" ] || printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'tty:x:5:' 'kvm:x:108:' \
        'nogroup:x:65534:' >"$dir/etc/group"
    [ -e "$dir/etc/hosts" ] || printf '127.0.0.1 localhost\n::1 localhost\n' >"$dir/etc/hosts"
    # The links of update-alternatives.
    for pair in sh:dash awk:mawk nawk:mawk pager:more which:which.debianutils; do
        if [ -e "$dir/usr/bin/${pair#*:}" ] && [ ! -e "$dir/usr/bin/${pair%:*}" ]; then
            ln -s "${pair#*:}" "$dir/usr/bin/${pair%:*}"
        fi
    done
    [ ! -e "$dir/usr/bin/python3.11" ] || lab_compile_python "$dir"
}

# Byte code: without it every start of Python compiles its library again. It is the same on every architecture, and
# hash-checked byte code has no time stamp in it.
lab_compile_python() {
    local dir=$1
    if [ -x /usr/bin/python3.11 ]; then
        /usr/bin/python3.11 -B -m compileall -q --invalidation-mode unchecked-hash -s "$dir" \
            "$dir/usr/lib/python3.11" "$dir/usr/lib/python3" >/dev/null || true
    fi
}

# lab_trim_tree DIR: what no test reads.
lab_trim_tree() {
    rm -rf "$1"/usr/share/{doc,man,info,locale,lintian,bug,doc-base,i18n,common-licenses,initramfs-tools} \
        "$1"/usr/lib/systemd "$1"/usr/share/zoneinfo "$1"/var/lib/dpkg "$1"/var/cache/*
}

# lab_squash DIR FILE: the same bytes from the same files.
lab_squash() {
    lab_need mksquashfs squashfs-tools
    rm -f "$2"
    env -u SOURCE_DATE_EPOCH mksquashfs "$1" "$2" -comp zstd -Xcompression-level 12 -b 128K -no-progress -quiet \
        -mkfs-time "${SOURCE_DATE_EPOCH:-0}" -all-time "${SOURCE_DATE_EPOCH:-0}" -no-exports >&2
}

# lab_cached ENTRY MAKER ARG...: fills the directory ENTRY once. MAKER gets an empty directory beside it and its ARGs;
# only a complete directory gets its name. Two callers at a time: the second waits. What nobody used for two weeks goes.
lab_cached() {
    local entry=$1 maker=$2 lock
    shift 2
    if [ -d "$entry" ]; then
        touch "$entry"
        return 0
    fi
    mkdir -p "${entry%/*}"
    exec {lock}>"${entry%/*}/.lock-${entry##*/}"
    flock "$lock"
    if [ ! -d "$entry" ]; then
        rm -rf "${entry%/*}/.new-${entry##*/}."*
        mkdir "${entry%/*}/.new-${entry##*/}.$$"
        "$maker" "${entry%/*}/.new-${entry##*/}.$$" "$@"
        mv "${entry%/*}/.new-${entry##*/}.$$" "$entry"
        find "${entry%/*}" -mindepth 1 -maxdepth 1 -type d -mtime +14 -exec rm -rf {} +
    fi
    flock -u "$lock"
    exec {lock}>&-
}
