# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes what the lab boots, once for each key: the kernel, the initramfs, the root image (with or without QEMU in it).
# shellcheck shell=bash disable=SC2154  # the lab_ variables come from arch/<arch>.sh

# What a test may need in the lab. The libraries are those that bvmm and its tests link, and gcc's sanitizers.
readonly LAB_PACKAGES=(base-files bash dash coreutils util-linux mount procps iproute2 grep sed mawk findutils gzip zstd tar
    diffutils hostname kmod libc-bin busybox-static strace socat python3-minimal python3 python3-jsonschema
    libseccomp2 libcap-ng0 libjansson4 libnettle8 libck0 libfdt1 libcmocka0 libasan8 libubsan1 libtsan2)

# lab_key ARCH KIND PACKAGE...
lab_key() {
    {
        echo "$@" "${lab_modules[@]}"
        lab_versions "${@:3}" "$lab_kernel_package" 2>/dev/null
        # The functions themselves: a comment changes nothing that they make.
        declare -f lab_make lab_make_initrd lab_prune_modules lab_install_kernel "${LAB_TREE_FUNCTIONS[@]}"
    } | sha256sum | cut -c 1-24
}

# lab_make_initrd TREE VERSION FILE: busybox and the modules, in the order in which they are to be loaded. The init itself
# is added at every start (lab), so that a change of it makes nothing again.
lab_make_initrd() {
    local tree=$1 version=$2 stage path
    stage=$(mktemp -d "${3%/*}/initrd.XXXXXX")
    mkdir -p "$stage"/{bin,dev,proc,sys,modules}
    cp "$tree/bin/busybox" "$stage/bin/busybox"
    ln -s busybox "$stage/bin/sh"
    depmod -b "$tree" "$version"
    for path in $(modprobe -d "$tree" -S "$version" --show-depends -a "${lab_modules[@]}" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'); do
        cp "$path" "$stage/modules/"
        echo "${path##*/}" >>"$stage/modules/order"
    done
    (cd "$stage" && find . | LC_ALL=C sort | cpio --quiet -o -H newc) >"$3"
    rm -rf "$stage"
}

# lab_prune_modules TREE: a lab has no hardware but virtio's.
lab_prune_modules() {
    local modules
    for modules in "$1"/lib/modules/*/kernel; do
        rm -rf "$modules"/{sound,security,samples}
        find "$modules/drivers" -mindepth 1 -maxdepth 1 ! -name virtio ! -name vhost ! -name block ! -name char \
            -exec rm -rf {} +
        find "$modules/net" -mindepth 1 -maxdepth 1 ! -name vmw_vsock -exec rm -rf {} +
        find "$modules/fs" -mindepth 1 -maxdepth 1 ! -name fuse ! -name squashfs ! -name overlayfs ! -name erofs \
            -exec rm -rf {} +
    done
}

# lab_make DIR ARCH PACKAGE...: the maker that lab_cached calls.
lab_make() {
    local dir=$1 arch=$2 tree version
    shift 2
    tree=$dir/tree
    lab_need depmod kmod cpio cpio mksquashfs squashfs-tools mmdebstrap mmdebstrap
    lab_say "making the $arch lab's root from Debian packages (about a minute)"
    lab_extract "$arch" "$tree" "$lab_kernel_package" "$@"
    version=$(basename "$tree"/lib/modules/*)
    lab_install_kernel "$tree" "$version" "$dir"
    lab_make_initrd "$tree" "$version" "$dir/initrd.cpio"
    lab_prune_modules "$tree"
    depmod -b "$tree" "$version"
    lab_trim_tree "$tree"
    rm -rf "${tree:?}/boot"
    mkdir -p "$tree/lab"
    lab_squash "$tree" "$dir/root.squashfs"
    rm -rf "$tree"
}

# lab_prepare ARCH WITH_QEMU: sets $lab_base, the directory with kernel, initrd.cpio and root.squashfs.
lab_prepare() {
    local packages=("${LAB_PACKAGES[@]}")
    [ "$2" = 0 ] || packages+=("${lab_peer_packages[@]}")
    # shellcheck disable=SC2034  # read by the callers
    lab_base=$(lab_cache_dir)/lab/$1-$(lab_key "$1" "$2" "${packages[@]}")
    lab_cached "$lab_base" lab_make "$1" "${packages[@]}"
}
