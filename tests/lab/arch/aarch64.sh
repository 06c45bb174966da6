# SPDX-License-Identifier: MIT OR Apache-2.0
# The lab on aarch64: a machine that starts its Linux at EL2, so that KVM, built into that kernel, has what it needs.
# shellcheck shell=bash disable=SC2034,SC2054

lab_qemu=qemu-system-aarch64
lab_qemu_package=qemu-system-arm
lab_kernel_package=linux-image-cloud-arm64
lab_peer_packages=(qemu-system-arm)
lab_modules=(virtio_pci virtio_blk virtio_console virtiofs squashfs overlay)
lab_console='console=ttyAMA0'

# lab_qemu_machine CPUS: the arguments of QEMU that are the architecture's own. BVMM_LAB_GIC=2: a host with an older
# interrupt controller. BVMM_LAB_CPU=max: all that QEMU can do (SVE, pointer authentication, LSE).
lab_qemu_machine() {
    qemu_machine=(-machine "virt,virtualization=on,gic-version=${BVMM_LAB_GIC:-3},memory-backend=ram"
        -cpu "${BVMM_LAB_CPU:-cortex-a72}" -smp "$1")
}

# lab_install_kernel TREE VERSION DIR: an Image as it is; a compressed one would cost TCG seconds.
lab_install_kernel() {
    local image=$1/boot/vmlinuz-$2
    if [ "$(od -An -tx1 -N2 "$image" | tr -d ' ')" = 1f8b ]; then
        gzip -dc "$image" >"$3/kernel"
    else
        cp "$image" "$3/kernel"
    fi
}
