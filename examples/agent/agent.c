/* SPDX-License-Identifier: MIT */
/*
 * agent.c: a guest that makes the calls which hvabi's runner sends over a serial line, and reports what it sees.
 *
 * It is an implementation under test in the role of the host, but it knows nothing of what a host should answer: the
 * host under test answers. What a guest cannot see (`query`) or bring about (`inject`, most of `config`) is `unsupported`.
 */
#include "agent.h"

#define MAX_TOUCHED 512u

static struct hvabi session;
static struct hvabi_setup setup;

/* Pages that this case or the last one may have made shared, and bytes that the runner placed. */
static struct hvabi_pages touched[MAX_TOUCHED];
static size_t touched_count;

/* Memory of the case, page by page, as it was before the call. */
#define MAX_PLACED 8u
static struct { uint64_t gpa; uint8_t before[HVABI_PAGE]; } placed[MAX_PLACED];
static size_t placed_count;
/* What the host wrote, found by comparison. */
static uint8_t after[MAX_PLACED][HVABI_PAGE];

void agent_log(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args);
	va_end(args);
	agent_put("hvabi agent: ", 13);
	agent_put(text, strlen(text));
	agent_put("\n", 1);
}

void agent_die(const char *format, ...)
{
	char text[256];
	va_list args;
	static const char head[] = "\n" HVABI_PREFIX "{\"id\":null,\"error\":{\"message\":\"", tail[] = "\"}}\n";

	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args);
	va_end(args);
	agent_put(head, sizeof head - 1);
	agent_put(text, strlen(text));
	agent_put(tail, sizeof tail - 1);
	machine_halt();
}

int machine_register(const char *name)
{
	for (int i = 0; i < AGENT_REGISTERS; i++)
		if (strcmp(machine_registers[i], name) == 0)
			return i;
	return -1;
}

/* -- configure and reset ------------------------------------------------------------------------------------------- */

/* What could not be put back would make a later case fail, so it is not done. */
static bool touch(struct hvabi *s, const struct hvabi_pages *pages)
{
	if (pages->pages == 0)
		return true;
	if (agent_form.max_undo != 0 && pages->pages > agent_form.max_undo)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "0x%llx pages at 0x%llx could not be put back page by page",
				    (unsigned long long)pages->pages, (unsigned long long)pages->gpa);
	if (touched_count == MAX_TOUCHED)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "more than %u ranges in one case", MAX_TOUCHED);
	touched[touched_count++] = *pages;
	return true;
}

static bool reset(struct hvabi *s)
{
	enum hvabi_outcome outcome = s->outcome;
	char message[HVABI_MAX_MESSAGE];

	/* A page that cannot go back is no reason to stop: most were not shared at all, because the call was refused. */
	memcpy(message, s->message, sizeof message);
	while (touched_count > 0) {
		touched[--touched_count].state = HVABI_PRIVATE;
		(void)agent_form.convert(s, &touched[touched_count]);
	}
	s->outcome = outcome;
	memcpy(s->message, message, sizeof message);
	for (size_t i = 0; i < placed_count; i++) {
		memset(placed[i].before, 0, sizeof placed[i].before);
		if (!agent_form.poke(s, placed[i].gpa, placed[i].before, sizeof placed[i].before))
			return false;
	}
	placed_count = 0;
	return true;
}

static bool configure(struct hvabi *s, const struct hvabi_setup *wanted)
{
	enum agent_answer enabled = agent_form.enabled != NULL ? agent_form.enabled() : AGENT_UNKNOWN;
	const char *told = machine_option("call");

	if (told != NULL)
		enabled = strncmp(told, "off", 3) == 0 ? AGENT_NO : AGENT_YES;
	if (wanted->has_max_ranges)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "max_ranges: a guest cannot set a limit of its host");
	if (wanted->has_memory && !agent_form.takes_slots)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "memory: a guest cannot change which of its addresses are memory");
	if (wanted->enabled && enabled == AGENT_NO)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "the host does not announce the call; if it has it all the same, boot the "
				    "agent with call=on");
	if (!wanted->enabled && enabled != AGENT_NO)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "enabled: the host has the call switched on, as far as the guest can see; "
				    "start one that has not, or boot the agent with call=off");
	if (!reset(s))
		return false;
	setup = *wanted;
	return true;
}

static bool config(struct hvabi *s, const char *key, uint64_t value)
{
	return hvabi_refuse(s, HVABI_UNSUPPORTED, "%s: a guest cannot set it to 0x%llx for its host", key,
			    (unsigned long long)value);
}

static bool range(struct hvabi *s, const struct hvabi_pages *pages)
{
	/* A call that is switched off can have shared nothing, and its answer does not depend on it. */
	if (!setup.enabled)
		return true;
	return touch(s, pages) && agent_form.convert(s, pages);
}

/* -- call ---------------------------------------------------------------------------------------------------------- */

static bool poke(struct hvabi *s, uint64_t gpa, const uint8_t *data, size_t size)
{
	if (agent_form.poke == NULL)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "calls of this form use registers only, not memory");
	while (size > 0) {
		const uint64_t page = gpa & ~(uint64_t)(HVABI_PAGE - 1);
		const size_t offset = (size_t)(gpa - page), rest = HVABI_PAGE - offset, part = size < rest ? size : rest;
		size_t i = 0;

		while (i < placed_count && placed[i].gpa != page)
			i++;
		if (i == MAX_PLACED)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "more than %u pages of memory in one case", MAX_PLACED);
		if (i == placed_count) {
			memset(placed[i].before, 0, HVABI_PAGE);
			if (!agent_form.poke(s, page, placed[i].before, HVABI_PAGE))
				return false;
			placed[placed_count++].gpa = page;
		}
		if (!agent_form.poke(s, gpa, data, part))
			return false;
		memcpy(placed[i].before + offset, data, part);
		gpa += part;
		data += part;
		size -= part;
	}
	return true;
}

/* Adds the bytes that are not as they were. Small gaps are closed where there are too many pieces. */
static void compare_memory(struct hvabi_reply *out)
{
	for (size_t i = 0; i < placed_count; i++) {
		const uint8_t *now = agent_form.see(placed[i].gpa);
		size_t gap = 0;

		memcpy(after[i], now, HVABI_PAGE);
		for (size_t at = 0; at < HVABI_PAGE; at++) {
			struct hvabi_piece *last = out->piece_count > 0 ? &out->pieces[out->piece_count - 1] : NULL;

			if (after[i][at] == placed[i].before[at]) {
				gap++;
				continue;
			}
			if (last != NULL && last->data >= after[i] && last->data < after[i] + HVABI_PAGE &&
			    (gap == 0 || out->piece_count == HVABI_MAX_PIECES)) {
				last->size = (size_t)(after[i] + at + 1 - last->data);
			} else if (out->piece_count < HVABI_MAX_PIECES) {
				out->pieces[out->piece_count++] = (struct hvabi_piece){ placed[i].gpa + at, after[i] + at, 1 };
			}
			gap = 0;
		}
		memcpy(placed[i].before, after[i], HVABI_PAGE);
	}
}

static bool call(struct hvabi *s, const struct hvabi_call *asked, struct hvabi_reply *out)
{
	const unsigned width = strcmp(agent_form.abis[setup.abi].transports[setup.transport], "vmcall32") == 0 ? 32 : 64;
	struct agent_request request = { 0, asked->mode == 0 ? width : asked->mode, asked->cpl, { 0 } };
	uint64_t sent[AGENT_REGISTERS];
	struct hvabi_pages pages = { 0, 0, HVABI_PRIVATE };
	char why[128] = "";

	if (request.mode != width)
		return hvabi_refuse(s, HVABI_ERROR, "the mode is not that of the transport");
	for (size_t i = 0; i < asked->reg_count; i++) {
		const int index = machine_register(asked->regs[i].name);

		if (index < 0)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "register %s cannot be set here", asked->regs[i].name);
		request.regs[index] = asked->regs[i].value;
	}
	request.instruction = agent_form.instruction(&setup);
	memcpy(sent, request.regs, sizeof sent);
	for (size_t i = 0; agent_form.named(&setup, &request, i, &pages); i++)
		if (!touch(s, &pages))
			return false;
	if (agent_form.before != NULL)
		agent_form.before(&setup, &request);
	if (!machine_execute(&request, &out->word, why, sizeof why))
		return hvabi_refuse(s, HVABI_ERROR, "%s", why);
	out->kind = out->word != NULL ? HVABI_FAULT : HVABI_RETURN;
	for (int i = 0; i < AGENT_REGISTERS; i++)
		if (request.regs[i] != sent[i])
			hvabi_set(out, machine_registers[i], request.regs[i]);
	compare_memory(out);
	return true;
}

/* -- the program --------------------------------------------------------------------------------------------------- */

void agent_main(void)
{
	static const struct hvabi_ops ops = {
		.setup = configure, .config = config, .reset = reset, .range = range, .poke = poke, .call = call,
	};

	session.name = "hvabi agent";
	session.version = agent_form.label;
	session.abis = agent_form.abis;
	session.abi_count = agent_form.abi_count;
	session.ops = &ops;
	agent_log("%s", agent_form.label);
	for (;;) {
		/* A runner that comes back after `stop` finds a new session. */
		(void)hvabi_run(&session);
		session.stopped = session.configured = session.open = false;
	}
}
