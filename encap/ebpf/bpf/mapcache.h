/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The map-cache: of an EID, its longest prefix. */
#ifndef XTRKIT_MAPCACHE_H
#define XTRKIT_MAPCACHE_H

static __always_inline __u32 scope(__u32 iid, __u8 v6) { return bpf_htonl(iid << 8 | (v6 ? 6 : 4)); }

/* covers looks an EID up among prefixes. */
static __always_inline void *covers(void *map, const struct eid *e, __u8 v6)
{
	struct prefix k = { .len = v6 ? 32 + 128 : 32 + 32, .eid = *e };

	return bpf_map_lookup_elem(map, &k);
}

static __always_inline int same(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* eid_hash is that of hosts: hashEID in Go. Neighbours have chains that are
 * neighbours, and share a line of the processor's cache. */
static __always_inline __u32 eid_hash(const struct eid *e)
{
	const __u32 low = bpf_htonl(0xfff);
	int v6 = (bpf_ntohl(e->scope) & 0xff) == 6;
	__u32 a = e->scope + hosts_seed, b = v6 ? e->addr[0] : e->addr[0] & ~low, c = e->addr[1];

	MIX(a, b, c);
	a += e->addr[2];
	b += e->addr[3] & ~low;
	return jhash_final(a, b, c) + bpf_ntohl((v6 ? e->addr[3] : e->addr[0]) & low);
}

/* find_host returns the entry of a single EID; 0 if there is none. */
__global __u32 find_host(const struct eid *e)
{
	__u32 id, i;

	if (!e)
		return 0;
	id = eid_hash(e) & hosts_mask;
	__u32 *first = bpf_map_lookup_elem(&hosts, &id);

	id = first ? *first : 0;
	for (i = 0; i < MAX_CHAIN && id; i++) {
		struct entry *x = bpf_map_lookup_elem(&entries, &id);

		if (!x)
			break;
		if (x->eid.scope == e->scope && same(x->eid.addr, e->addr))
			return id;
		id = *(volatile __u32 *)&x->next;
	}
	return 0;
}

/* lookup returns the number of the entry for an EID; 0 if there is none. */
static __always_inline __u32 lookup(const struct eid *e, __u8 v6)
{
	__u32 id = find_host(e), *prefix = id ? &id : covers(&prefixes, e, v6);

	return prefix ? *prefix : 0;
}

/* leads_to returns where an entry leads, 0 if there is none. It is read once: it
 * changes while packets are under way. */
static __always_inline __u32 leads_to(__u32 id)
{
	volatile struct entry *e = id ? bpf_map_lookup_elem(&entries, &id) : NULL;

	return e ? e->set : 0;
}

/* meet notes that a packet met an entry. */
static __always_inline void meet(__u32 id)
{
	struct entry *e = bpf_map_lookup_elem(&entries, &id);

	if (e && !e->used)
		e->used = 1;
}

#endif
