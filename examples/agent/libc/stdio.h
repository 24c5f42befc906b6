/* SPDX-License-Identifier: MIT */
/* The little of <stdio.h> that hvabi_iut.h needs, for a program without a C library. See libc.c. */
#ifndef AGENT_STDIO_H
#define AGENT_STDIO_H

#include <stdarg.h>
#include <stddef.h>

#define EOF (-1)

int vsnprintf(char *out, size_t size, const char *format, va_list args);
int snprintf(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
