/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* stdio.h: what src/platform needs of it, for compiling where macOS's headers are not. */
#include <stdarg.h>
#include <stddef.h>

typedef struct stub_file FILE;
extern FILE *__stdoutp;
extern FILE *__stderrp;
#define stdout __stdoutp
#define stderr __stderrp
int printf(const char *format, ...);
int fprintf(FILE *file, const char *format, ...);
int fflush(FILE *file);
int snprintf(char *text, size_t bytes, const char *format, ...);
int vsnprintf(char *text, size_t bytes, const char *format, va_list args);
