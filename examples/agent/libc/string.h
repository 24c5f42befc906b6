/* SPDX-License-Identifier: MIT */
/* The little of <string.h> that hvabi_iut.h and the compiler need, for a program without a C library. See libc.c. */
#ifndef AGENT_STRING_H
#define AGENT_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *one, const void *two, size_t size);
size_t strlen(const char *text);
int strcmp(const char *one, const char *two);
int strncmp(const char *one, const char *two, size_t size);
char *strchr(const char *text, int c);

#endif
