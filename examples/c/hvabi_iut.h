/* SPDX-License-Identifier: MIT */
/*
 * hvabi_iut.h: the side of an implementation under test (IUT) of hvabi's line protocol, version 1.
 *
 * One C99 header, no other files, no dynamic memory. Copy it into your tree, fill a struct hvabi_ops with functions of
 * yours, and call hvabi_run() from main(). docs/protocol.md of hvabi explains the protocol; my_vmm.c shows the use.
 *
 * What the header does: lines, JSON, hex, the order of commands, checks of every argument, answers. What is left to
 * you: the ABI. A function of yours returns true, or `return hvabi_refuse(s, HVABI_UNSUPPORTED or HVABI_ERROR, ...)`.
 *
 * Limits, each a macro that you may define before the #include:
 *   HVABI_MAX_LINE     bytes of a line, prefix and line end included; 1 MiB is what the protocol allows. struct hvabi
 *                      holds two such buffers, so make it static. A longer answer becomes `error`.
 *   HVABI_MAX_DEPTH    16 levels of JSON; the protocol's own messages have five.
 *   HVABI_MAX_REGS     64 registers in one command or answer.
 *   HVABI_MAX_PIECES   16 pieces of memory in one answer.
 *   HVABI_MAX_NAME     64 bytes of a name, its end included.
 *   HVABI_MAX_MESSAGE  256 bytes of a message; a longer one is cut.
 * A command beyond a limit is answered with `error`, never cut silently.
 *
 * Input and output are stdin and stdout unless you define HVABI_GETC() (next byte, or EOF), HVABI_PUT(data, size) and
 * HVABI_FLUSH(). Whatever else you print to stdout must be whole lines that do not begin with "@hvabi ".
 */
#ifndef HVABI_IUT_H
#define HVABI_IUT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef HVABI_MAX_LINE
#define HVABI_MAX_LINE (1u << 20)
#endif
#ifndef HVABI_MAX_DEPTH
#define HVABI_MAX_DEPTH 16
#endif
#ifndef HVABI_MAX_REGS
#define HVABI_MAX_REGS 64
#endif
#ifndef HVABI_MAX_PIECES
#define HVABI_MAX_PIECES 16
#endif
#ifndef HVABI_MAX_NAME
#define HVABI_MAX_NAME 64
#endif
#ifndef HVABI_MAX_MESSAGE
#define HVABI_MAX_MESSAGE 256
#endif
#ifndef HVABI_GETC
#define HVABI_GETC() getc(stdin)
#endif
#ifndef HVABI_PUT
#define HVABI_PUT(data, size) ((void)fwrite((data), 1, (size), stdout))
#endif
#ifndef HVABI_FLUSH
#define HVABI_FLUSH() ((void)fflush(stdout))
#endif

#define HVABI_PREFIX "@hvabi "
#define HVABI_PROTOCOL 1
#define HVABI_PAGE 4096u

/* -- what you see ------------------------------------------------------------------------------------------------ */

enum hvabi_outcome { HVABI_OK, HVABI_UNSUPPORTED, HVABI_ERROR };
enum hvabi_role { HVABI_HOST = 1, HVABI_GUEST = 2 };
enum hvabi_state { HVABI_PRIVATE, HVABI_SHARED, HVABI_SHARED_READ_ONLY };

struct hvabi_reg {
	char name[HVABI_MAX_NAME];
	uint64_t value;
	uint64_t high; /* bits 127:64, of an xmm register only */
};

struct hvabi_pages {
	uint64_t gpa;   /* bytes, a multiple of 4096 */
	uint64_t pages; /* of 4 KiB */
	enum hvabi_state state;
};

struct hvabi_abi {
	const char *id;
	const char *const *revisions;  /* ends with NULL */
	const char *const *transports; /* ends with NULL */
	unsigned roles;                /* HVABI_HOST | HVABI_GUEST */
	const char *profile;           /* NULL: "spec" */
};

struct hvabi_setup {
	size_t abi;       /* index into the list of ABIs */
	size_t revision;  /* index into the ABI's revisions */
	size_t transport; /* index into the ABI's transports */
	enum hvabi_role role;
	char profile[HVABI_MAX_NAME]; /* "" where the runner asks for none */
	bool has_enabled, enabled;    /* enabled is true where the runner does not say */
	bool has_memory;              /* slots come one by one to ops->slot; without it everything is memory */
	bool has_max_ranges;
	uint64_t max_ranges;
	bool has_scratch;
	struct hvabi_pages scratch;
};

struct hvabi_call {
	uint32_t vcpu;
	unsigned mode; /* 64 or 32; 0 where the runner does not say */
	unsigned cpl;  /* 0 where the runner does not say */
	const struct hvabi_reg *regs;
	size_t reg_count;
};

struct hvabi_fault {
	char name[HVABI_MAX_NAME]; /* "vmm-error", "stop-after", "event-pending", "memory-flip" */
	uint64_t number;           /* errno, pages, after, or gpa */
	const char *hex;           /* of memory-flip: hvabi_bytes() reads it; else NULL */
};

enum hvabi_kind {
	HVABI_RETURN, /* host: the guest goes on */
	HVABI_REPLAY, /* host: the guest executes the call again */
	HVABI_FAULT,  /* host: the guest takes the exception `word` */
	HVABI_STOP,   /* host or guest: it ends, `word` says why */
	HVABI_EXIT,   /* host with feature exits: asks its VMM by a call of the ABI `word` */
	HVABI_CALL,   /* guest: makes a call */
	HVABI_STEP,   /* guest with feature local-steps: does the step `word` on `ranges` */
	HVABI_END     /* guest: has ended, `done` and `ranges` say what is converted */
};

struct hvabi_piece {
	uint64_t gpa;
	const uint8_t *data; /* must live until your function has returned to hvabi_run() */
	size_t size;
};

struct hvabi_reply {
	enum hvabi_kind kind;
	const char *word; /* of the kinds that say so; must live like `data` above */
	bool done;
	struct hvabi_reg regs[HVABI_MAX_REGS];
	size_t reg_count;
	struct hvabi_piece pieces[HVABI_MAX_PIECES];
	size_t piece_count;
	const struct hvabi_pages *ranges; /* of HVABI_STEP, HVABI_END and query */
	size_t range_count;
};

struct hvabi;

/* Each may be NULL: what needs it is then `unsupported`, or ignored where that is said. */
struct hvabi_ops {
	/* A new configuration, with the ABI's own keys at their defaults; the state is that of an empty reset. */
	bool (*setup)(struct hvabi *s, const struct hvabi_setup *setup);
	/* One configuration key of the ABI's own. */
	bool (*config)(struct hvabi *s, const char *key, uint64_t value);
	/* One slot of config.memory; NULL: ignored. */
	bool (*slot)(struct hvabi *s, uint64_t gpa, uint64_t pages);
	/* Everything private, facts at their defaults, memory zero, injections cleared, conversations ended. */
	bool (*reset)(struct hvabi *s);
	/* After reset: pages that are not private, sorted. */
	bool (*range)(struct hvabi *s, const struct hvabi_pages *range);
	/* After reset: pages of which a fact is true. */
	bool (*fact)(struct hvabi *s, const char *name, uint64_t gpa, uint64_t pages);
	/* Bytes of memory, in pieces of 256 at most; NULL: ignored (for an ABI that uses registers only). */
	bool (*poke)(struct hvabi *s, uint64_t gpa, const uint8_t *data, size_t size);
	bool (*call)(struct hvabi *s, const struct hvabi_call *call, struct hvabi_reply *out);
	/* `what->pages` may be 0 and `what->gpa` unaligned. */
	bool (*convert)(struct hvabi *s, const struct hvabi_pages *what, struct hvabi_reply *out);
	/* The other side's answer to what was yielded; memory has come to poke. */
	bool (*resume)(struct hvabi *s, const struct hvabi_reg *regs, size_t count, struct hvabi_reply *out);
	/* Sets out->ranges: merged, sorted, only what is not private. */
	bool (*query)(struct hvabi *s, struct hvabi_reply *out);
	/* Sets the name and the ranges of fact number `index`; false behind the last one. NULL: no facts. */
	bool (*query_fact)(struct hvabi *s, size_t index, const char **name, struct hvabi_reply *out);
	bool (*inject)(struct hvabi *s, const struct hvabi_fault *fault);
};

struct hvabi {
	/* Yours to fill in. */
	const char *name, *version;
	const struct hvabi_abi *abis;
	size_t abi_count;
	const struct hvabi_ops *ops;
	bool can_exits, can_local_steps; /* shown only to a runner that names them in its hello */
	void *user;
	/* Yours to read. */
	bool exits, local_steps; /* agreed with the runner; a hello takes effect with the next configure */
	/* Not yours. */
	bool next_exits, next_local_steps, configured, open, stopped;
	enum hvabi_role role;
	enum hvabi_outcome outcome;
	char message[HVABI_MAX_MESSAGE];
	struct hvabi_reg regs[HVABI_MAX_REGS];
	size_t reg_count;
	size_t used;
	bool overflow;
	char in[HVABI_MAX_LINE + 2u];
	char out[HVABI_MAX_LINE + 2u];
};

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline bool hvabi_refuse(struct hvabi *s, enum hvabi_outcome outcome, const char *format, ...)
{
	va_list args;

	s->outcome = outcome;
	va_start(args, format);
	(void)vsnprintf(s->message, sizeof s->message, format, args);
	va_end(args);
	return false;
}

/* Value of a register, 0 where the list has none of that name. */
static inline uint64_t hvabi_reg(const struct hvabi_reg *regs, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(regs[i].name, name) == 0)
			return regs[i].value;
	return 0;
}

/* Value of a register, or `otherwise` where the list has none of that name: an answer may leave it out, unchanged. */
static inline uint64_t hvabi_reg_or(const struct hvabi_reg *regs, size_t count, const char *name, uint64_t otherwise)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(regs[i].name, name) == 0)
			return regs[i].value;
	return otherwise;
}

/* Say in an answer, or in a guest's call, that a register has this value. One too many is a bug of the caller's. */
static inline void hvabi_set(struct hvabi_reply *out, const char *name, uint64_t value)
{
	struct hvabi_reg *reg = &out->regs[out->reg_count < HVABI_MAX_REGS ? out->reg_count++ : HVABI_MAX_REGS - 1];

	(void)snprintf(reg->name, sizeof reg->name, "%s", name);
	reg->value = value;
	reg->high = 0;
}

/* -- JSON: a line is checked once as a whole, then walked in place ----------------------------------------------- */

static inline bool hvabi_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline int hvabi_hex_digit(int32_t c, bool upper)
{
	if (c >= '0' && c <= '9')
		return (int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (int)(c - 'a') + 10;
	if (upper && c >= 'A' && c <= 'F')
		return (int)(c - 'A') + 10;
	return -1;
}

static inline const char *hvabi_space(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
		p++;
	return p;
}

static inline const char *hvabi_end_string(const char *p)
{
	for (p++; *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p != '\\')
			continue;
		p++;
		if (*p == 'u') {
			for (int i = 0; i < 4; i++)
				if (hvabi_hex_digit(*++p, true) < 0)
					return NULL;
		} else if (*p == '\0' || strchr("\"\\/bfnrt", *p) == NULL) {
			return NULL;
		}
	}
	return p + 1;
}

static inline const char *hvabi_end_digits(const char *p)
{
	if (!hvabi_digit(*p))
		return NULL;
	while (hvabi_digit(*p))
		p++;
	return p;
}

static inline const char *hvabi_end_number(const char *p)
{
	if (*p == '-')
		p++;
	p = *p == '0' ? p + 1 : hvabi_end_digits(p);
	if (p != NULL && *p == '.')
		p = hvabi_end_digits(p + 1);
	if (p != NULL && (*p == 'e' || *p == 'E')) {
		p++;
		p = hvabi_end_digits(*p == '+' || *p == '-' ? p + 1 : p);
	}
	return p;
}

/* End of the value that begins at p, NULL where there is no right one. */
static inline const char *hvabi_end_value(const char *p, unsigned depth)
{
	static const char *const words[] = { "true", "false", "null" };

	if (*p == '"')
		return hvabi_end_string(p);
	if (*p == '{' || *p == '[') {
		const char close = *p == '{' ? '}' : ']';

		if (depth >= HVABI_MAX_DEPTH)
			return NULL;
		p = hvabi_space(p + 1);
		if (*p == close)
			return p + 1;
		for (;;) {
			if (close == '}') {
				p = *p == '"' ? hvabi_end_string(p) : NULL;
				if (p == NULL)
					return NULL;
				p = hvabi_space(p);
				if (*p != ':')
					return NULL;
				p = hvabi_space(p + 1);
			}
			p = hvabi_end_value(p, depth + 1);
			if (p == NULL)
				return NULL;
			p = hvabi_space(p);
			if (*p == close)
				return p + 1;
			if (*p != ',')
				return NULL;
			p = hvabi_space(p + 1);
		}
	}
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strncmp(p, words[i], strlen(words[i])) == 0)
			return p + strlen(words[i]);
	return hvabi_end_number(p);
}

/* A walk over the items of a checked list or object. */
struct hvabi_walk {
	const char *at;
	char close;
};

static inline struct hvabi_walk hvabi_walk(const char *value)
{
	struct hvabi_walk walk = { hvabi_space(value + 1), *value == '{' ? '}' : ']' };

	return walk;
}

static inline bool hvabi_next(struct hvabi_walk *walk, const char **key, const char **item)
{
	const char *p = walk->at;

	if (*p == walk->close)
		return false;
	if (walk->close == '}') {
		*key = p;
		p = hvabi_space(hvabi_space(hvabi_end_string(p)) + 1);
	}
	*item = p;
	p = hvabi_space(hvabi_end_value(p, 0));
	walk->at = *p == ',' ? hvabi_space(p + 1) : p;
	return true;
}

/* Next character of a string, *p behind its opening quote; -1 at its end. What is not ASCII is 0x80 or more. */
static inline int32_t hvabi_char(const char **p)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	int32_t c = (unsigned char)*(*p)++;

	if (c == '"')
		return -1;
	if (c != '\\')
		return c;
	c = (unsigned char)*(*p)++;
	if (c == 'u') {
		c = 0;
		for (int i = 0; i < 4; i++)
			c = c * 16 + hvabi_hex_digit(*(*p)++, true);
		return c;
	}
	const char *at = strchr(from, (int)c);
	return at != NULL ? to[at - from] : c;
}

static inline bool hvabi_is(const char *value, const char *text)
{
	if (value == NULL || *value++ != '"')
		return false;
	for (;;) {
		int32_t c = hvabi_char(&value);

		if (c < 0)
			return *text == '\0';
		if (c == 0 || c != (unsigned char)*text++)
			return false;
	}
}

/* A member of an object, NULL where it has none; the last one where it has several. */
static inline const char *hvabi_get(const char *object, const char *name)
{
	struct hvabi_walk walk = hvabi_walk(object);
	const char *key = NULL, *item = NULL, *found = NULL;

	while (hvabi_next(&walk, &key, &item))
		if (hvabi_is(key, name))
			found = item;
	return found;
}

/* -- words of the protocol --------------------------------------------------------------------------------------- */

/* A string of printable ASCII. */
static inline bool hvabi_text(struct hvabi *s, const char *value, const char *what, char out[HVABI_MAX_NAME])
{
	size_t n = 0;

	if (value == NULL)
		return hvabi_refuse(s, HVABI_ERROR, "the argument `%s` is missing", what);
	if (*value++ != '"')
		return hvabi_refuse(s, HVABI_ERROR, "%s is a string", what);
	for (int32_t c; (c = hvabi_char(&value)) >= 0; out[n++] = (char)c) {
		if (n + 1 >= HVABI_MAX_NAME)
			return hvabi_refuse(s, HVABI_ERROR, "%s is longer than %d characters", what, HVABI_MAX_NAME - 1);
		/* No word of the protocol has such a character, so the word is just not known. */
		if (c < 0x20 || c > 0x7e)
			c = '?';
	}
	out[n] = '\0';
	return true;
}

/* A "0x..." string of at most 64 bits, or 128 where `high` is given. */
static inline bool hvabi_number(struct hvabi *s, const char *value, const char *what, uint64_t *low, uint64_t *high)
{
	size_t digits = 0;
	uint64_t top = 0;

	*low = 0;
	if (value == NULL)
		return hvabi_refuse(s, HVABI_ERROR, "the argument `%s` is missing", what);
	if (*value++ != '"' || hvabi_char(&value) != '0' || hvabi_char(&value) != 'x')
		return hvabi_refuse(s, HVABI_ERROR, "%s is a lower-case \"0x...\" string", what);
	for (int32_t c; (c = hvabi_char(&value)) >= 0; digits++) {
		int digit = hvabi_hex_digit(c, false);

		if (digit < 0)
			return hvabi_refuse(s, HVABI_ERROR, "%s is a lower-case \"0x...\" string", what);
		if (top >> 60 || (high == NULL && *low >> 60))
			return hvabi_refuse(s, HVABI_ERROR, "%s does not fit %d bits", what, high == NULL ? 64 : 128);
		top = top << 4 | *low >> 60;
		*low = *low << 4 | (unsigned)digit;
	}
	if (high != NULL)
		*high = top;
	return digits > 0 || hvabi_refuse(s, HVABI_ERROR, "%s is a lower-case \"0x...\" string", what);
}

/* A JSON number: an integer from 0 to 2^32 - 1. */
static inline bool hvabi_small(struct hvabi *s, const char *value, const char *what, uint32_t *out)
{
	const char *end;
	uint64_t n = 0;

	if (value == NULL)
		return hvabi_refuse(s, HVABI_ERROR, "the argument `%s` is missing", what);
	end = hvabi_end_value(value, 0);
	for (; value < end && hvabi_digit(*value) && n <= UINT32_MAX; value++)
		n = n * 10 + (unsigned)(*value - '0');
	if (value != end || n > UINT32_MAX)
		return hvabi_refuse(s, HVABI_ERROR, "%s is a JSON number from 0 to 2^32 - 1", what);
	*out = (uint32_t)n;
	return true;
}

/* The next bytes of a string of hex; the number of them, 0 at its end, -1 for wrong ones. *p begins behind its quote. */
static inline int hvabi_bytes(const char **p, uint8_t *out, int size)
{
	int n = 0;

	while (n < size) {
		const char *before = *p;
		int32_t first = hvabi_char(p);
		int high = hvabi_hex_digit(first, false), low;

		if (first < 0) {
			*p = before; /* the closing quote stays, so that the next look finds it again */
			return n;
		}
		low = hvabi_hex_digit(hvabi_char(p), false);
		if (high < 0 || low < 0)
			return -1;
		out[n++] = (uint8_t)(high * 16 + low);
	}
	return n;
}

static inline bool hvabi_list(struct hvabi *s, const char *value, const char *what, struct hvabi_walk *walk)
{
	if (value != NULL && *value != '[')
		return hvabi_refuse(s, HVABI_ERROR, "%s is a list", what);
	*walk = hvabi_walk(value != NULL ? value : "[]");
	return true;
}

/* The items of a row of `width`. */
static inline bool hvabi_row(struct hvabi *s, const char *row, const char *what, size_t width, const char **items)
{
	struct hvabi_walk walk = { "]", ']' };
	const char *key = NULL, *item = NULL;
	size_t n = 0;

	if (*row == '[')
		walk = hvabi_walk(row);
	for (; hvabi_next(&walk, &key, &item); n++)
		if (n < width)
			items[n] = item;
	return n == width || hvabi_refuse(s, HVABI_ERROR, "%s is a list of lists of %d", what, (int)width);
}

static inline bool hvabi_state_word(struct hvabi *s, const char *value, enum hvabi_state *out)
{
	static const char *const words[] = { "private", "shared", "shared-read-only" };
	char word[HVABI_MAX_NAME];

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (hvabi_is(value, words[i])) {
			*out = (enum hvabi_state)i;
			return true;
		}
	}
	return hvabi_text(s, value, "the state", word) && hvabi_refuse(s, HVABI_ERROR, "%s is no page state", word);
}

/* One [gpa, pages] or [gpa, pages, state] that must begin at *next or later. */
static inline bool hvabi_pages_row(struct hvabi *s, const char *row, const char *what, bool state, uint64_t *next,
				   struct hvabi_pages *out)
{
	const char *items[3] = { NULL, NULL, NULL };

	out->state = HVABI_PRIVATE;
	if (!hvabi_row(s, row, what, state ? 3 : 2, items) || !hvabi_number(s, items[0], "gpa", &out->gpa, NULL) ||
	    !hvabi_number(s, items[1], "pages", &out->pages, NULL))
		return false;
	if (state && !hvabi_state_word(s, items[2], &out->state))
		return false;
	if (out->gpa % HVABI_PAGE != 0 || out->pages > (UINT64_C(1) << 52) - out->gpa / HVABI_PAGE)
		return hvabi_refuse(s, HVABI_ERROR, "%s does not hold whole pages below 2^64", what);
	if (out->gpa / HVABI_PAGE < *next)
		return hvabi_refuse(s, HVABI_ERROR, "%s is not sorted and disjoint", what);
	*next = out->gpa / HVABI_PAGE + out->pages;
	return true;
}

/* Checks a whole list, so that nothing is done with a wrong one. */
static inline bool hvabi_check_pages(struct hvabi *s, const char *value, const char *what, bool state)
{
	struct hvabi_walk walk = { "]", ']' };
	struct hvabi_pages row;
	const char *key = NULL, *item = NULL;
	uint64_t next = 0;

	if (!hvabi_list(s, value, what, &walk))
		return false;
	while (hvabi_next(&walk, &key, &item))
		if (!hvabi_pages_row(s, item, what, state, &next, &row))
			return false;
	return true;
}

static inline bool hvabi_read_regs(struct hvabi *s, const char *value)
{
	struct hvabi_walk walk;
	const char *key = NULL, *item = NULL;

	s->reg_count = 0;
	if (value != NULL && *value != '{')
		return hvabi_refuse(s, HVABI_ERROR, "regs is an object");
	walk = hvabi_walk(value != NULL ? value : "{}");
	while (hvabi_next(&walk, &key, &item)) {
		struct hvabi_reg *reg = &s->regs[s->reg_count];

		if (s->reg_count >= HVABI_MAX_REGS)
			return hvabi_refuse(s, HVABI_ERROR, "more than %d registers", HVABI_MAX_REGS);
		if (!hvabi_text(s, key, "the name of a register", reg->name))
			return false;
		reg->high = 0;
		if (!hvabi_number(s, item, reg->name, &reg->value, strncmp(reg->name, "xmm", 3) == 0 ? &reg->high : NULL))
			return false;
		s->reg_count++;
	}
	return true;
}

/* Checks `mem`, and with `write` also hands it on. */
static inline bool hvabi_read_mem(struct hvabi *s, const char *value, bool write)
{
	struct hvabi_walk walk = { "]", ']' };
	const char *key = NULL, *item = NULL, *row[2] = { NULL, NULL };
	uint64_t next = 0, gpa = 0;
	uint8_t part[256];
	bool full = false; /* the last piece ended at 2^64 */
	int n;

	if (!hvabi_list(s, value, "mem", &walk))
		return false;
	while (hvabi_next(&walk, &key, &item)) {
		if (!hvabi_row(s, item, "mem", 2, row) || !hvabi_number(s, row[0], "gpa", &gpa, NULL))
			return false;
		if (full || gpa < next)
			return hvabi_refuse(s, HVABI_ERROR, "mem is not sorted and disjoint");
		if (*row[1]++ != '"')
			return hvabi_refuse(s, HVABI_ERROR, "mem holds even-length lower-case hex");
		while ((n = hvabi_bytes(&row[1], part, (int)sizeof part)) > 0) {
			if (full || gpa + (uint64_t)n - 1 < gpa)
				return hvabi_refuse(s, HVABI_ERROR, "mem passes 2^64");
			if (write && s->ops->poke != NULL && !s->ops->poke(s, gpa, part, (size_t)n))
				return false;
			gpa += (uint64_t)n;
			full = gpa == 0;
		}
		if (n < 0)
			return hvabi_refuse(s, HVABI_ERROR, "mem holds even-length lower-case hex");
		next = gpa;
	}
	return true;
}

/* -- answers ----------------------------------------------------------------------------------------------------- */

static inline void hvabi_add(struct hvabi *s, const char *data, size_t size)
{
	if (size > HVABI_MAX_LINE - s->used) {
		s->overflow = true;
		return;
	}
	memcpy(s->out + s->used, data, size);
	s->used += size;
}

static inline void hvabi_add_raw(struct hvabi *s, const char *text)
{
	hvabi_add(s, text, strlen(text));
}

static inline void hvabi_add_string(struct hvabi *s, const char *text)
{
	char escape[8];

	hvabi_add(s, "\"", 1);
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\' || c < 0x20 || c > 0x7e) {
			(void)snprintf(escape, sizeof escape, "\\u%04x", c > 0x7e ? '?' : c);
			hvabi_add_raw(s, escape);
		} else {
			hvabi_add(s, text, 1);
		}
	}
	hvabi_add(s, "\"", 1);
}

static inline void hvabi_add_number(struct hvabi *s, uint64_t high, uint64_t low)
{
	static const char digits[] = "0123456789abcdef";
	char text[36];
	size_t at = sizeof text;

	text[--at] = '"';
	do {
		text[--at] = digits[low & 15];
		low = low >> 4 | high << 60;
		high >>= 4;
	} while (low != 0 || high != 0);
	text[--at] = 'x';
	text[--at] = '0';
	text[--at] = '"';
	hvabi_add(s, text + at, sizeof text - at);
}

static inline void hvabi_add_key(struct hvabi *s, const char *key, bool first)
{
	if (!first)
		hvabi_add(s, ",", 1);
	hvabi_add_string(s, key);
	hvabi_add(s, ":", 1);
}

static inline void hvabi_add_ranges(struct hvabi *s, const struct hvabi_pages *ranges, size_t count, bool state)
{
	static const char *const words[] = { "private", "shared", "shared-read-only" };

	hvabi_add(s, "[", 1);
	for (size_t i = 0; i < count && !s->overflow; i++) {
		hvabi_add_raw(s, i > 0 ? ",[" : "[");
		hvabi_add_number(s, 0, ranges[i].gpa);
		hvabi_add(s, ",", 1);
		hvabi_add_number(s, 0, ranges[i].pages);
		if (state) {
			hvabi_add(s, ",", 1);
			hvabi_add_string(s, words[ranges[i].state]);
		}
		hvabi_add(s, "]", 1);
	}
	hvabi_add(s, "]", 1);
}

static inline void hvabi_add_words(struct hvabi *s, const char *const *words)
{
	hvabi_add(s, "[", 1);
	for (size_t i = 0; words[i] != NULL; i++) {
		if (i > 0)
			hvabi_add(s, ",", 1);
		hvabi_add_string(s, words[i]);
	}
	hvabi_add(s, "]", 1);
}

/* regs and mem, without the braces around them. */
static inline void hvabi_add_machine(struct hvabi *s, const struct hvabi_reply *out)
{
	char two[3];

	hvabi_add_raw(s, "\"regs\":{");
	for (size_t i = 0; i < out->reg_count; i++) {
		hvabi_add_key(s, out->regs[i].name, i == 0);
		hvabi_add_number(s, out->regs[i].high, out->regs[i].value);
	}
	hvabi_add_raw(s, "},\"mem\":[");
	for (size_t i = 0; i < out->piece_count; i++) {
		hvabi_add_raw(s, i > 0 ? ",[" : "[");
		hvabi_add_number(s, 0, out->pieces[i].gpa);
		hvabi_add_raw(s, ",\"");
		for (size_t k = 0; k < out->pieces[i].size; k++) {
			(void)snprintf(two, sizeof two, "%02x", out->pieces[i].data[k]);
			hvabi_add(s, two, 2);
		}
		hvabi_add_raw(s, "\"]");
	}
	hvabi_add(s, "]", 1);
}

static inline void hvabi_add_reply(struct hvabi *s, const struct hvabi_reply *out)
{
	const char *word = out->word != NULL ? out->word : "";

	s->open = out->kind == HVABI_EXIT || out->kind == HVABI_CALL || out->kind == HVABI_STEP;
	hvabi_add_raw(s, s->open ? ",\"yield\":{" : ",\"ok\":{");
	switch (out->kind) {
	case HVABI_RETURN:
	case HVABI_REPLAY:
	case HVABI_FAULT:
		hvabi_add_raw(s, out->kind == HVABI_RETURN ? "\"end\":\"return\","
				 : out->kind == HVABI_REPLAY ? "\"end\":\"replay\"," : "\"end\":\"fault\",\"fault\":");
		if (out->kind == HVABI_FAULT) {
			hvabi_add_string(s, word);
			hvabi_add(s, ",", 1);
		}
		hvabi_add_machine(s, out);
		break;
	case HVABI_STOP:
		hvabi_add_raw(s, "\"end\":\"stop\",\"reason\":");
		hvabi_add_string(s, word);
		if (s->role == HVABI_HOST) {
			hvabi_add(s, ",", 1);
			hvabi_add_machine(s, out);
		}
		break;
	case HVABI_EXIT:
		hvabi_add_raw(s, "\"exit\":{\"abi\":");
		hvabi_add_string(s, word);
		hvabi_add(s, ",", 1);
		hvabi_add_machine(s, out);
		hvabi_add(s, "}", 1);
		break;
	case HVABI_CALL:
		hvabi_add_machine(s, out);
		break;
	case HVABI_STEP:
		hvabi_add_raw(s, "\"step\":");
		hvabi_add_string(s, word);
		hvabi_add_raw(s, ",\"ranges\":");
		hvabi_add_ranges(s, out->ranges, out->range_count, true);
		break;
	case HVABI_END:
		hvabi_add_raw(s, out->done ? "\"done\":true,\"ranges\":" : "\"done\":false,\"ranges\":");
		hvabi_add_ranges(s, out->ranges, out->range_count, true);
		break;
	}
	hvabi_add(s, "}", 1);
}

/* -- commands: each adds its answer to s->out, or refuses --------------------------------------------------------- */

static inline bool hvabi_word_in(const char *list, const char *word)
{
	struct hvabi_walk walk;
	const char *key = NULL, *item = NULL;

	if (list == NULL || *list != '[')
		return false;
	walk = hvabi_walk(list);
	while (hvabi_next(&walk, &key, &item))
		if (hvabi_is(item, word))
			return true;
	return false;
}

static inline bool hvabi_do_hello(struct hvabi *s, const char *command)
{
	const char *const roles[] = { "host", "guest", NULL }, *features[4] = { NULL, NULL, NULL, NULL };
	const char *wanted = hvabi_get(command, "features");
	uint32_t low = 0, high = 0;
	size_t n = 0;

	if (!hvabi_small(s, hvabi_get(command, "min"), "min", &low) ||
	    !hvabi_small(s, hvabi_get(command, "max"), "max", &high))
		return false;
	if (hvabi_get(command, "runner") == NULL)
		return hvabi_refuse(s, HVABI_ERROR, "the argument `runner` is missing");
	if (low > HVABI_PROTOCOL || high < HVABI_PROTOCOL)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "this is protocol version %d only", HVABI_PROTOCOL);
	s->next_exits = s->can_exits && hvabi_word_in(wanted, "exits");
	s->next_local_steps = s->can_local_steps && hvabi_word_in(wanted, "local-steps");
	if (s->next_exits)
		features[n++] = "exits";
	if (s->ops->inject != NULL)
		features[n++] = "inject";
	if (s->next_local_steps)
		features[n++] = "local-steps";
	hvabi_add_raw(s, ",\"ok\":{\"protocol\":1,\"name\":");
	hvabi_add_string(s, s->name);
	hvabi_add_raw(s, ",\"version\":");
	hvabi_add_string(s, s->version);
	hvabi_add_raw(s, ",\"abis\":{");
	for (size_t i = 0; i < s->abi_count; i++) {
		const struct hvabi_abi *abi = &s->abis[i];
		const char *const *first = abi->roles & HVABI_HOST ? roles : roles + 1;

		hvabi_add_key(s, abi->id, i == 0);
		hvabi_add_raw(s, "{\"revisions\":");
		hvabi_add_words(s, abi->revisions);
		hvabi_add_raw(s, ",\"transports\":");
		hvabi_add_words(s, abi->transports);
		hvabi_add_raw(s, ",\"roles\":");
		if (abi->roles == HVABI_HOST)
			hvabi_add_raw(s, "[\"host\"]");
		else
			hvabi_add_words(s, first);
		if (abi->profile != NULL) {
			hvabi_add_key(s, "profile", false);
			hvabi_add_string(s, abi->profile);
		}
		hvabi_add(s, "}", 1);
	}
	hvabi_add_raw(s, "},\"features\":");
	hvabi_add_words(s, features);
	hvabi_add(s, "}", 1);
	return true;
}

/* Index of an argument's word in a list. */
static inline bool hvabi_choose(struct hvabi *s, const char *command, const char *what, const char *const *words,
				size_t *out)
{
	const char *value = hvabi_get(command, what);
	char word[HVABI_MAX_NAME];

	if (!hvabi_text(s, value, what, word))
		return false;
	for (*out = 0; words[*out] != NULL; ++*out)
		if (strcmp(words[*out], word) == 0)
			return true;
	return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no %s %s here", what, word);
}

/* Reads the keys that every ABI has; the ABI's own are checked and, with `apply`, handed on. */
static inline bool hvabi_read_config(struct hvabi *s, const char *config, struct hvabi_setup *out, bool apply)
{
	struct hvabi_walk walk = hvabi_walk(config), slots = { "]", ']' };
	struct hvabi_pages row;
	const char *key = NULL, *item = NULL, *slot = NULL;
	char name[HVABI_MAX_NAME];
	uint64_t value = 0, next = 0;

	while (hvabi_next(&walk, &key, &item)) {
		if (!hvabi_text(s, key, "the name of a config key", name))
			return false;
		if (strcmp(name, "memory") == 0) {
			out->has_memory = true;
			if (!hvabi_check_pages(s, item, "memory", false))
				return false;
			slots = hvabi_walk(item);
			for (next = 0; apply && s->ops->slot != NULL && hvabi_next(&slots, &key, &slot);)
				if (!hvabi_pages_row(s, slot, "memory", false, &next, &row) || !s->ops->slot(s, row.gpa, row.pages))
					return false;
		} else if (strcmp(name, "profile") == 0) {
			if (!hvabi_text(s, item, "profile", out->profile))
				return false;
		} else if (strcmp(name, "enabled") == 0) {
			if (*item != 't' && *item != 'f')
				return hvabi_refuse(s, HVABI_ERROR, "enabled is true or false");
			out->has_enabled = true;
			out->enabled = *item == 't';
		} else if (strcmp(name, "max_ranges") == 0) {
			out->has_max_ranges = true;
			if (!hvabi_number(s, item, name, &out->max_ranges, NULL))
				return false;
		} else if (strcmp(name, "scratch") == 0) {
			out->has_scratch = true;
			next = 0;
			if (!hvabi_pages_row(s, item, name, false, &next, &out->scratch))
				return false;
		} else {
			if (s->ops->config == NULL)
				return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no config key %s", name);
			if (!hvabi_number(s, item, name, &value, NULL) || (apply && !s->ops->config(s, name, value)))
				return false;
		}
	}
	return true;
}

static inline bool hvabi_do_configure(struct hvabi *s, const char *command)
{
	static const char *const roles[] = { "host", "guest", NULL };
	const char *config = hvabi_get(command, "config");
	struct hvabi_setup setup;
	char id[HVABI_MAX_NAME];
	size_t role = 0;

	memset(&setup, 0, sizeof setup);
	setup.enabled = true;
	if (!hvabi_text(s, hvabi_get(command, "abi"), "abi", id))
		return false;
	while (setup.abi < s->abi_count && strcmp(s->abis[setup.abi].id, id) != 0)
		setup.abi++;
	if (setup.abi == s->abi_count)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no ABI %s here", id);
	if (!hvabi_choose(s, command, "revision", s->abis[setup.abi].revisions, &setup.revision) ||
	    !hvabi_choose(s, command, "transport", s->abis[setup.abi].transports, &setup.transport) ||
	    !hvabi_choose(s, command, "role", roles, &role))
		return false;
	setup.role = role == 0 ? HVABI_HOST : HVABI_GUEST;
	if ((s->abis[setup.abi].roles & setup.role) == 0)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "%s has no role %s here", id, roles[role]);
	if (config == NULL)
		config = "{}";
	if (*config != '{')
		return hvabi_refuse(s, HVABI_ERROR, "config is an object");
	if (!hvabi_read_config(s, config, &setup, false))
		return false;
	/* From here on a failure leaves nothing configured. */
	s->configured = s->open = false;
	s->role = setup.role;
	s->exits = s->next_exits;
	s->local_steps = s->next_local_steps;
	if ((s->ops->setup != NULL && !s->ops->setup(s, &setup)) || !hvabi_read_config(s, config, &setup, true))
		return false;
	s->configured = true;
	hvabi_add_raw(s, ",\"ok\":{}");
	return true;
}

/* The facts of reset: checked, and with `apply` handed on. */
static inline bool hvabi_read_facts(struct hvabi *s, const char *facts, bool apply)
{
	struct hvabi_walk walk = hvabi_walk(facts), rows = { "]", ']' };
	struct hvabi_pages row;
	const char *key = NULL, *list = NULL, *item = NULL;
	char name[HVABI_MAX_NAME];
	uint64_t next;

	while (hvabi_next(&walk, &key, &list)) {
		if (!hvabi_text(s, key, "the name of a fact", name))
			return false;
		if (s->ops->fact == NULL)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no fact %s", name);
		if (!hvabi_check_pages(s, list, name, false))
			return false;
		rows = hvabi_walk(list);
		for (next = 0; apply && hvabi_next(&rows, &key, &item);)
			if (!hvabi_pages_row(s, item, name, false, &next, &row) || !s->ops->fact(s, name, row.gpa, row.pages))
				return false;
	}
	return true;
}

static inline bool hvabi_do_reset(struct hvabi *s, const char *command)
{
	const char *ranges = hvabi_get(command, "ranges"), *facts = hvabi_get(command, "facts");
	const char *key = NULL, *item = NULL;
	struct hvabi_pages row;
	struct hvabi_walk walk;
	uint64_t next = 0;
	bool good = true;

	if (!s->configured)
		return hvabi_refuse(s, HVABI_ERROR, "`reset` before `configure`");
	if (facts == NULL)
		facts = "{}";
	if (*facts != '{')
		return hvabi_refuse(s, HVABI_ERROR, "facts is an object");
	if (!hvabi_check_pages(s, ranges, "ranges", true) || !hvabi_read_facts(s, facts, false))
		return false;
	s->open = false;
	if (s->ops->reset != NULL && !s->ops->reset(s))
		return false;
	walk = hvabi_walk(ranges != NULL ? ranges : "[]");
	while (good && hvabi_next(&walk, &key, &item)) {
		good = hvabi_pages_row(s, item, "ranges", true, &next, &row);
		if (good && row.pages > 0 && row.state != HVABI_PRIVATE) {
			if (s->ops->range == NULL)
				good = hvabi_refuse(s, HVABI_UNSUPPORTED, "no page can be shared here");
			else
				good = s->ops->range(s, &row);
		}
	}
	if (!good || !hvabi_read_facts(s, facts, true)) {
		/* Half of a state would be worse than none; the reason stays what it was. */
		if (s->ops->reset != NULL)
			(void)s->ops->reset(s);
		return false;
	}
	hvabi_add_raw(s, ",\"ok\":{}");
	return true;
}

static inline bool hvabi_do_call(struct hvabi *s, const char *command, struct hvabi_reply *out)
{
	const char *cpu = hvabi_get(command, "cpu"), *mode = NULL, *cpl = NULL, *mem = hvabi_get(command, "mem");
	struct hvabi_call call = { 0, 0, 0, s->regs, 0 };
	uint32_t level = 0;

	if (!hvabi_small(s, hvabi_get(command, "vcpu"), "vcpu", &call.vcpu))
		return false;
	if (cpu != NULL) {
		if (*cpu != '{')
			return hvabi_refuse(s, HVABI_ERROR, "cpu is an object");
		mode = hvabi_get(cpu, "mode");
		cpl = hvabi_get(cpu, "cpl");
	}
	if (mode != NULL && !hvabi_is(mode, "64") && !hvabi_is(mode, "32"))
		return hvabi_refuse(s, HVABI_ERROR, "cpu.mode is \"64\" or \"32\"");
	call.mode = mode == NULL ? 0 : hvabi_is(mode, "64") ? 64 : 32;
	if (cpl != NULL && !hvabi_small(s, cpl, "cpl", &level))
		return false;
	if (level > 3)
		return hvabi_refuse(s, HVABI_ERROR, "cpl is 0 to 3");
	call.cpl = level;
	if (!hvabi_read_regs(s, hvabi_get(command, "regs")) || !hvabi_read_mem(s, mem, false) ||
	    !hvabi_read_mem(s, mem, true))
		return false;
	call.reg_count = s->reg_count;
	return s->ops->call(s, &call, out);
}

static inline bool hvabi_do_inject(struct hvabi *s, const char *command)
{
	static const char *const faults[][2] = {
		{ "vmm-error", "errno" }, { "stop-after", "pages" }, { "event-pending", "after" }, { "memory-flip", "gpa" },
	};
	struct hvabi_fault fault;
	const char *hex;
	uint8_t part[256];
	int n;

	memset(&fault, 0, sizeof fault);
	if (!hvabi_text(s, hvabi_get(command, "fault"), "fault", fault.name))
		return false;
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		if (strcmp(fault.name, faults[i][0]) != 0)
			continue;
		if (!hvabi_number(s, hvabi_get(command, faults[i][1]), faults[i][1], &fault.number, NULL))
			return false;
		if (i == 3) {
			hex = hvabi_get(command, "hex");
			if (hex == NULL || *hex++ != '"')
				return hvabi_refuse(s, HVABI_ERROR, "hex is even-length lower-case hex");
			fault.hex = hex;
			while ((n = hvabi_bytes(&hex, part, (int)sizeof part)) > 0)
				;
			if (n < 0)
				return hvabi_refuse(s, HVABI_ERROR, "hex is even-length lower-case hex");
		}
		if (i == 2 && fault.number == 0)
			return hvabi_refuse(s, HVABI_ERROR, "after is 1 or more");
		if (!s->ops->inject(s, &fault))
			return false;
		hvabi_add_raw(s, ",\"ok\":{}");
		return true;
	}
	return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no fault %s", fault.name);
}

static inline bool hvabi_do_query(struct hvabi *s, struct hvabi_reply *out)
{
	const char *name = NULL;
	bool first = true;

	if (!s->ops->query(s, out))
		return false;
	hvabi_add_raw(s, ",\"ok\":{\"ranges\":");
	hvabi_add_ranges(s, out->ranges, out->range_count, true);
	hvabi_add_raw(s, ",\"facts\":{");
	for (size_t i = 0; s->ops->query_fact != NULL && s->ops->query_fact(s, i, &name, out); i++) {
		if (out->range_count == 0)
			continue;
		hvabi_add_key(s, name, first);
		hvabi_add_ranges(s, out->ranges, out->range_count, false);
		first = false;
	}
	hvabi_add_raw(s, "}}");
	return true;
}

static inline bool hvabi_do_convert(struct hvabi *s, const char *command, struct hvabi_reply *out)
{
	struct hvabi_pages what;

	return hvabi_number(s, hvabi_get(command, "gpa"), "gpa", &what.gpa, NULL) &&
	       hvabi_number(s, hvabi_get(command, "pages"), "pages", &what.pages, NULL) &&
	       hvabi_state_word(s, hvabi_get(command, "to"), &what.state) && s->ops->convert(s, &what, out);
}

static inline bool hvabi_do_resume(struct hvabi *s, const char *command, struct hvabi_reply *out)
{
	const char *mem = hvabi_get(command, "mem");

	return hvabi_read_regs(s, hvabi_get(command, "regs")) && hvabi_read_mem(s, mem, false) &&
	       hvabi_read_mem(s, mem, true) && s->ops->resume(s, s->regs, s->reg_count, out);
}

static inline bool hvabi_command(struct hvabi *s, const char *command)
{
	static struct hvabi_reply out; /* too large for some stacks, and there is one command at a time */
	char name[HVABI_MAX_NAME];
	const struct { const char *name; enum hvabi_role role; bool there; } needs[] = {
		{ "call", HVABI_HOST, s->ops->call != NULL },
		{ "query", HVABI_HOST, s->ops->query != NULL },
		{ "inject", HVABI_HOST, s->ops->inject != NULL },
		{ "convert", HVABI_GUEST, s->ops->convert != NULL },
	};

	memset(&out, 0, sizeof out);
	if (!hvabi_text(s, hvabi_get(command, "cmd"), "cmd", name))
		return false;
	if (strcmp(name, "hello") == 0)
		return hvabi_do_hello(s, command);
	if (strcmp(name, "configure") == 0)
		return hvabi_do_configure(s, command);
	if (strcmp(name, "reset") == 0)
		return hvabi_do_reset(s, command);
	if (strcmp(name, "stop") == 0) {
		s->stopped = true;
		hvabi_add_raw(s, ",\"ok\":{}");
		return true;
	}
	if (strcmp(name, "resume") == 0) {
		if (!s->open || s->ops->resume == NULL)
			return hvabi_refuse(s, HVABI_ERROR, "`resume` without a conversation");
		if (!hvabi_do_resume(s, command, &out))
			return false;
		hvabi_add_reply(s, &out);
		return true;
	}
	for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
		bool good;

		if (strcmp(name, needs[i].name) != 0)
			continue;
		if (s->open)
			return hvabi_refuse(s, HVABI_ERROR, "`%s` while a conversation is open", name);
		if (!s->configured || s->role != needs[i].role)
			return hvabi_refuse(s, HVABI_ERROR, "`%s` needs the role %s: configure it first", name,
					    needs[i].role == HVABI_HOST ? "host" : "guest");
		if (!needs[i].there)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no `%s` here", name);
		if (strcmp(name, "inject") == 0)
			return hvabi_do_inject(s, command);
		if (strcmp(name, "query") == 0)
			return hvabi_do_query(s, &out);
		good = strcmp(name, "call") == 0 ? hvabi_do_call(s, command, &out) : hvabi_do_convert(s, command, &out);
		if (good)
			hvabi_add_reply(s, &out);
		return good;
	}
	return hvabi_refuse(s, HVABI_UNSUPPORTED, "there is no command %s", name);
}

/* -- lines ------------------------------------------------------------------------------------------------------- */

enum hvabi_line { HVABI_LINE_END, HVABI_LINE_LOG, HVABI_LINE_FRAME, HVABI_LINE_LONG };

/* Reads a line into s->in, without its end. */
static inline enum hvabi_line hvabi_read_line(struct hvabi *s, size_t *size)
{
	const size_t prefix = strlen(HVABI_PREFIX);
	size_t total = 0;
	bool ended = false, frame;
	int c;

	while (!ended && (c = HVABI_GETC()) != EOF) {
		if (total <= HVABI_MAX_LINE)
			s->in[total++] = (char)c; /* one more than a line may have, so that it shows */
		ended = c == '\n';
	}
	if (total == 0)
		return HVABI_LINE_END;
	frame = total >= prefix && memcmp(s->in, HVABI_PREFIX, prefix) == 0;
	if (!frame)
		return HVABI_LINE_LOG;
	if (total > HVABI_MAX_LINE)
		return HVABI_LINE_LONG;
	while (total > 0 && (s->in[total - 1] == '\n' || s->in[total - 1] == '\r'))
		total--;
	s->in[total] = '\0';
	*size = total;
	return HVABI_LINE_FRAME;
}

static inline void hvabi_begin(struct hvabi *s, const char *id)
{
	s->used = 0;
	s->overflow = false;
	hvabi_add_raw(s, HVABI_PREFIX "{\"id\":");
	hvabi_add_raw(s, id);
}

/* Handles a frame in s->in and leaves the answer in s->out. */
static inline void hvabi_frame(struct hvabi *s, bool too_long, size_t size)
{
	const char *text = hvabi_space(s->in + strlen(HVABI_PREFIX)), *end = NULL, *value, *p;
	char id[24] = "null";
	bool good = false;

	s->outcome = HVABI_ERROR;
	if (too_long) {
		(void)hvabi_refuse(s, HVABI_ERROR, "a line is longer than %u bytes", (unsigned)HVABI_MAX_LINE);
	} else if (*text != '{' || (end = hvabi_end_value(text, 0)) == NULL || hvabi_space(end) != s->in + size) {
		(void)hvabi_refuse(s, HVABI_ERROR, "the line holds no JSON object, or more than %d levels of it",
				   HVABI_MAX_DEPTH);
	} else {
		value = hvabi_get(text, "id");
		p = value != NULL && *value == '-' ? value + 1 : value;
		while (p != NULL && hvabi_digit(*p))
			p++;
		if (p == NULL || p == value || p != hvabi_end_value(value, 0) || p - value >= (ptrdiff_t)sizeof id) {
			(void)hvabi_refuse(s, HVABI_ERROR, "`id` is a JSON number");
		} else {
			memcpy(id, value, (size_t)(p - value));
			id[p - value] = '\0';
			hvabi_begin(s, id);
			good = hvabi_command(s, text);
		}
	}
	hvabi_add_raw(s, "}\n");
	if (good && s->overflow) {
		s->open = false;
		good = hvabi_refuse(s, HVABI_ERROR, "the answer does not fit a line");
	}
	if (!good) {
		hvabi_begin(s, id);
		hvabi_add_raw(s, s->outcome == HVABI_UNSUPPORTED ? ",\"unsupported\":{\"message\":"
								: ",\"error\":{\"message\":");
		hvabi_add_string(s, s->message);
		hvabi_add_raw(s, "}}\n");
	}
}

/* Serves until `stop` or the end of input; returns the exit status, 0. */
static inline int hvabi_run(struct hvabi *s)
{
	enum hvabi_line kind;
	size_t size = 0;

	while (!s->stopped && (kind = hvabi_read_line(s, &size)) != HVABI_LINE_END) {
		if (kind == HVABI_LINE_LOG)
			continue;
		hvabi_frame(s, kind == HVABI_LINE_LONG, size);
		HVABI_PUT(s->out, s->used);
		HVABI_FLUSH();
	}
	return 0;
}

#endif
