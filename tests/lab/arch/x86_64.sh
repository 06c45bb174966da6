# SPDX-License-Identifier: MIT OR Apache-2.0
# The lab on x86_64: what QEMU offers (AMD's virtualization, nested paging) and what its Linux loads to use it.
# shellcheck shell=bash disable=SC2034,SC2054

lab_qemu=qemu-system-x86_64
lab_qemu_package=qemu-system-x86
lab_kernel_package=linux-image-cloud-amd64
lab_peer_packages=(qemu-system-x86)
lab_modules=(virtio_pci virtio_blk virtio_console virtiofs squashfs overlay kvm-amd)
lab_console='console=ttyS0'

# lab_qemu_machine CPUS: the arguments of QEMU that are the architecture's own.
lab_qemu_machine() {
    qemu_machine=(-machine 'q35,memory-backend=ram,i8042=off,usb=off,vmport=off'
        -cpu 'EPYC,+svm,+npt,-xsave,-xsavec,-xsaveopt,-xgetbv1,-avx,-avx2,-fma,-f16c' -smp "$1" -no-hpet)
}

# lab_install_kernel TREE VERSION DIR: the uncompressed kernel, which starts by PVH: no loop of decompression in TCG.
lab_install_kernel() {
    local image=$1/boot/vmlinuz-$2 offset
    offset=$(LC_ALL=C grep -aobUP '\x02!L\x18' "$image" | head -n 1 | cut -d : -f 1)
    if [ -n "$offset" ] && command -v lz4 >/dev/null; then
        # The tail after the compressed stream is not LZ4: lz4 complains about it once it has written everything.
        tail -c "+$((offset + 1))" "$image" | lz4 -dc >"$3/kernel" 2>/dev/null || true
        if LC_ALL=C readelf -n "$3/kernel" 2>/dev/null | grep -q '0x00000012'; then
            return
        fi
    fi
    cp "$image" "$3/kernel"
}
