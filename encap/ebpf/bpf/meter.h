/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets and octets by map-cache entry. Nothing of it is left if nobody wants them. */
#ifndef XTRKIT_METER_H
#define XTRKIT_METER_H

/* meter returns the counters of an entry for this CPU. */
static __always_inline struct locator_count *meter(__u32 entry)
{
	__u32 at = entry + bpf_get_smp_processor_id() % meter_cpus * meter_entries;

	return bpf_map_lookup_elem(&entry_traffic, &at);
}

static __always_inline void tally(struct count *c, const struct count *n)
{
	if (!meter_shared) {
		add(c, n);
		return;
	}
	__sync_fetch_and_add(&c->packets, n->packets);
	__sync_fetch_and_add(&c->octets, n->octets);
}

/* count_to counts what leaves by an entry. */
static __always_inline void count_to(__u32 entry, const struct count *n)
{
	struct locator_count *t = meter_cpus ? meter(entry) : NULL;

	if (t)
		tally(&t->out, n);
}

/* count_from counts what came from an inner source, whose entry is known if the outer
 * one was checked. */
static __always_inline void count_from(const struct packet *p, __u32 entry, const struct count *n)
{
	if (!meter_cpus)
		return;
	if (!check_source)
		entry = lookup(&p->src, p->v6);
	struct locator_count *t = entry ? meter(entry) : NULL;

	if (t)
		tally(&t->in, n);
}

#endif
