/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* errno.h: what src/platform needs of it, for compiling where macOS's headers are not. */
#define ENOSYS 78
