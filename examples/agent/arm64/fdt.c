/* SPDX-License-Identifier: MIT */
/*
 * As much of a flattened device tree as finds a serial line (Devicetree Specification v0.4, chapter 5). Only what is
 * reached through the root's own address cells, or a bus that does not change addresses.
 */
#include "arm64/machine.h"

#define FDT_MAGIC 0xd00dfeedu
#define FDT_MAX (2u << 20)
enum { FDT_BEGIN = 1, FDT_END = 2, FDT_PROP = 3, FDT_NOP = 4 };

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Whether a list of strings has a word. */
static bool lists(const uint8_t *data, uint32_t size, const char *word)
{
	const size_t length = strlen(word) + 1;

	for (uint32_t at = 0; at + length <= size; at++)
		if ((at == 0 || data[at - 1] == 0) && memcmp(data + at, word, length) == 0)
			return true;
	return false;
}

struct walk {
	const uint8_t *fdt, *at, *end;
	const char *strings;
};

static bool begin(struct walk *walk, const uint8_t *fdt)
{
	if (fdt == NULL || be32(fdt) != FDT_MAGIC || be32(fdt + 4) > FDT_MAX)
		return false;
	walk->fdt = fdt;
	walk->at = fdt + be32(fdt + 8);
	walk->end = fdt + be32(fdt + 4);
	walk->strings = (const char *)fdt + be32(fdt + 12);
	return true;
}

/* The next token; of FDT_BEGIN the name, of FDT_PROP name, data and size. 0 at the end. */
static uint32_t next(struct walk *walk, const char **name, const uint8_t **data, uint32_t *size)
{
	while (walk->at + 4 <= walk->end) {
		const uint32_t token = be32(walk->at);

		walk->at += 4;
		if (token == FDT_BEGIN) {
			*name = (const char *)walk->at;
			walk->at += (strlen(*name) + 4) & ~(size_t)3;
		} else if (token == FDT_PROP) {
			*size = be32(walk->at);
			*name = walk->strings + be32(walk->at + 4);
			*data = walk->at + 8;
			walk->at += 8 + ((*size + 3) & ~(uint32_t)3);
		} else if (token != FDT_END && token != FDT_NOP) {
			return 0;
		}
		if (token != FDT_NOP)
			return token;
	}
	return 0;
}

bool fdt_uart(const uint8_t *fdt, struct arm64_uart *out)
{
	struct walk walk;
	const char *name = NULL;
	const uint8_t *data = NULL;
	uint32_t size = 0, cells = 2, depth = 0, token;
	bool found = false, placed = false;
	struct arm64_uart uart = { 0, 0, false };

	if (!begin(&walk, fdt))
		return false;
	while ((token = next(&walk, &name, &data, &size)) != 0) {
		if (token == FDT_BEGIN || token == FDT_END) {
			if (found && placed) {
				*out = uart;
				return true;
			}
			depth = token == FDT_BEGIN ? depth + 1 : depth - 1;
			found = placed = false;
			uart = (struct arm64_uart){ 0, 0, false };
		} else if (depth == 1 && strcmp(name, "#address-cells") == 0) {
			cells = be32(data);
		} else if (strcmp(name, "compatible") == 0) {
			uart.pl011 = lists(data, size, "arm,pl011");
			found = uart.pl011 || lists(data, size, "ns16550a") || lists(data, size, "ns16550");
		} else if (strcmp(name, "reg") == 0 && size >= cells * 4 && cells > 0) {
			uart.base = be32(data);
			if (cells == 2)
				uart.base = uart.base << 32 | be32(data + 4);
			placed = true;
		} else if (strcmp(name, "reg-shift") == 0 && size == 4) {
			uart.shift = be32(data);
		}
	}
	return false;
}

const char *fdt_command_line(const uint8_t *fdt)
{
	struct walk walk;
	const char *name = NULL;
	const uint8_t *data = NULL;
	uint32_t size = 0, token;

	if (!begin(&walk, fdt))
		return NULL;
	while ((token = next(&walk, &name, &data, &size)) != 0)
		if (token == FDT_PROP && strcmp(name, "bootargs") == 0 && size > 0 && data[size - 1] == 0)
			return (const char *)data;
	return NULL;
}
