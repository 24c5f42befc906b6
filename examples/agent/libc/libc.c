/* SPDX-License-Identifier: MIT */
/* What of a C library the agent needs. Byte by byte: on arm64 it runs without MMU, where no unaligned access is allowed. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void *memcpy(void *to, const void *from, size_t size)
{
	return memmove(to, from, size);
}

void *memmove(void *to, const void *from, size_t size)
{
	char *out = to;
	const char *in = from;

	if (out < in)
		for (size_t i = 0; i < size; i++)
			out[i] = in[i];
	else
		while (size-- > 0)
			out[size] = in[size];
	return to;
}

void *memset(void *to, int value, size_t size)
{
	char *out = to;

	while (size-- > 0)
		*out++ = (char)value;
	return to;
}

int memcmp(const void *one, const void *two, size_t size)
{
	const unsigned char *a = one, *b = two;

	for (; size > 0; size--, a++, b++)
		if (*a != *b)
			return *a < *b ? -1 : 1;
	return 0;
}

size_t strlen(const char *text)
{
	size_t n = 0;

	while (text[n] != '\0')
		n++;
	return n;
}

int strncmp(const char *one, const char *two, size_t size)
{
	for (; size > 0; size--, one++, two++)
		if (*one != *two || *one == '\0')
			return (int)(unsigned char)*one - (int)(unsigned char)*two;
	return 0;
}

int strcmp(const char *one, const char *two)
{
	return strncmp(one, two, SIZE_MAX);
}

char *strchr(const char *text, int c)
{
	for (;; text++) {
		if (*text == (char)c)
			return (char *)(uintptr_t)text;
		if (*text == '\0')
			return NULL;
	}
}

struct sink {
	char *out;
	size_t size, used;
};

static void put(struct sink *sink, char c)
{
	if (sink->used + 1 < sink->size)
		sink->out[sink->used] = c;
	sink->used++;
}

static void put_number(struct sink *sink, uint64_t value, unsigned base, unsigned width, char fill)
{
	char digits[24];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value > 0);
	for (; width > n; width--)
		put(sink, fill);
	while (n > 0)
		put(sink, digits[--n]);
}

/* %s, %c, %d, %u and %x with a width, zero fill and the sizes l, ll and z. */
int vsnprintf(char *out, size_t size, const char *format, va_list args)
{
	struct sink sink = { out, size, 0 };

	for (; *format != '\0'; format++) {
		unsigned width = 0, longs = 0;
		char fill = ' ';

		if (*format != '%') {
			put(&sink, *format);
			continue;
		}
		if (*++format == '0')
			fill = *format++;
		for (; *format >= '0' && *format <= '9'; format++)
			width = width * 10 + (unsigned)(*format - '0');
		for (; *format == 'l' || *format == 'z'; format++)
			longs++;
		if (*format == 's') {
			for (const char *text = va_arg(args, const char *); *text != '\0'; text++)
				put(&sink, *text);
		} else if (*format == 'c') {
			put(&sink, (char)va_arg(args, int));
		} else if (*format == 'd') {
			int64_t value = longs > 0 ? va_arg(args, long long) : va_arg(args, int);

			if (value < 0)
				put(&sink, '-');
			put_number(&sink, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, width, fill);
		} else if (*format == 'u' || *format == 'x') {
			uint64_t value = longs > 0 ? va_arg(args, unsigned long long) : va_arg(args, unsigned);

			put_number(&sink, value, *format == 'u' ? 10 : 16, width, fill);
		} else {
			put(&sink, *format);
		}
		if (*format == '\0')
			break;
	}
	if (size > 0)
		out[sink.used < size ? sink.used : size - 1] = '\0';
	return (int)sink.used;
}

int snprintf(char *out, size_t size, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(out, size, format, args);
	va_end(args);
	return n;
}
