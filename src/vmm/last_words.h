/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * last_words.h: the report of a launcher that dies of its own fault: a system call that its filter
 * forbids, or a crash.
 *
 * The report is rendered when the run begins, but for the words that only the end can tell, and kept. The
 * signal's handler fills in those, and writes it with calls that the filter allows anyway. It takes nothing
 * from the heap, which may be in pieces then.
 *
 * Thread: main, of the bvmm command; there is one set of last words in a process.
 */
#ifndef BVMM_VMM_LAST_WORDS_H
#define BVMM_VMM_LAST_WORDS_H

#include <signal.h>

#include "base/error.h"
#include "vmm/launcher.h"

/*
 * last_words_prepare - make the report ready, and catch crashes. Takes some 300 us.
 * @view: the job must stay until the process ends, or until last_words_done().
 */
int last_words_prepare(const struct launcher_view *view, struct bvmm_error *err) must_check;

/* Our filter does not allow any more to kill the VM process, and it is gone. */
void last_words_vm_gone(void);

/* The real report is where it belongs: from now on nothing is to be said. */
void last_words_done(void);

/*
 * For filter_catch(): say which call it was, and die. The launcher has one thread, so nobody writes to
 * its memory meanwhile.
 */
void last_words_forbidden(int signal, siginfo_t *info, void *context);

#endif
