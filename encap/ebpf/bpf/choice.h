/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The choice of locators by Priority and Weight (RFC 9300 section 9), as in package mapcache. */
#ifndef XTRKIT_CHOICE_H
#define XTRKIT_CHOICE_H

/* neg_log2 is -log2((u+1)/2^32) in units of 2^-16. */
static __always_inline __u64 neg_log2(__u32 u)
{
	__u64 x = (__u64)u + 1, y = x;
	__u32 exp = 0;

	if (y >> 32) { y >>= 32; exp = 32; }
	if (y >> 16) { y >>= 16; exp += 16; }
	if (y >> 8) { y >>= 8; exp += 8; }
	if (y >> 4) { y >>= 4; exp += 4; }
	if (y >> 2) { y >>= 2; exp += 2; }
	if (y >> 1) exp += 1;
	__u64 frac = x << (32 - exp) & 0xffffffff, rest = frac & 0xffffff;
	__u32 i = frac >> 24 & 0xff;
	__u64 lo = log2_table[i], hi = log2_table[i + 1];

	return (32 << 16) - (((__u64)exp << 16) + lo + ((hi - lo) * rest >> 24));
}

/* score ranks a candidate for a flow: the lowest log/weight wins. */
__global __u64 score(__u32 hash, __u32 salt)
{
	__u32 a = 0xdeadbeef + (1 << 2) + hash;

	return neg_log2(jhash_final(a + salt, a, a));
}

__global int is_up(__u32 id)
{
	struct locator *l = bpf_map_lookup_elem(&locators, &id);

	return l && !l->down;
}

/* favourite is each flow's own order of preference, by Weight. */
__global __u32 favourite(__u32 set, __u32 priority, __u32 hash)
{
	struct set *s = bpf_map_lookup_elem(&sets, &set);
	__u64 best_log = 0, best_weight = 1;
	__u32 id = 0, idle = 1, i;

	for (i = 0; s && i < MAX_MEMBERS; i++) {
		struct member *m = &s->member[i];

		if (i >= s->count)
			break;
		if (m->priority != priority || !m->usable || (!m->weight && !idle) || !is_up(m->locator))
			continue;
		__u64 log = score(hash, m->salt), weight = m->weight ? m->weight : 1;

		if (!id || (m->weight && idle) || log * best_weight < best_log * weight) {
			id = m->locator;
			best_log = log;
			best_weight = weight;
		}
		idle = idle && !m->weight;
	}
	return id;
}

/* bucket returns the locator whose bucket a flow is in; 0 if it can't be used. */
__global __u32 bucket(__u32 set, __u32 priority, __u32 hash)
{
	struct set *s = bpf_map_lookup_elem(&sets, &set);
	__u32 i;

	for (i = 0; s && i < MAX_MEMBERS; i++) {
		struct member *m = &s->member[i];

		if (i >= s->count)
			break;
		if (m->priority == priority && (__u32)((__u64)hash * m->of >> 32) < m->end)
			return m->usable && is_up(m->locator) ? m->locator : 0;
	}
	return 0;
}

/* choose returns the locator of a flow; 0 if there is none. */
__global __u32 choose(__u32 set, __u32 hash)
{
	struct set *s = bpf_map_lookup_elem(&sets, &set);
	__u32 best = 255, id, i;

	if (!s)
		return 0;
	id = bucket(set, s->best, hash);
	if (id)
		return id;
	for (i = 0; s && i < MAX_MEMBERS; i++) {
		struct member *m = &s->member[i];

		if (i >= s->count)
			break;
		if (m->priority < best && m->usable && is_up(m->locator))
			best = m->priority;
	}
	if (best == 255)
		return 0;
	id = bucket(set, best, hash);
	return id ? id : favourite(set, best, hash);
}

/* choose_local returns which of our locators a flow leaves by; MAX_LOCALS if none. */
__global __u32 choose_local(__u32 list, __u32 ifindex, __u32 hash)
{
	struct local_list *ls = bpf_map_lookup_elem(&locals, &list);
	__u64 best_log = 0, best_weight = 1;
	__u32 at = MAX_LOCALS, i;

	if (ls && ls->count == 1 && (ifindex ? ls->local[0].ifindex == ifindex : ls->local[0].best))
		return 0;
	for (i = 0; ls && i < MAX_LOCALS; i++) {
		struct local *l = &ls->local[i];

		if (i >= ls->count)
			break;
		if (ifindex && l->ifindex == ifindex)
			return i;
		if (ifindex || !l->best)
			continue;
		__u64 log = score(hash, l->salt), weight = l->weight ? l->weight : 1;

		if (at == MAX_LOCALS || log * best_weight < best_log * weight) {
			at = i;
			best_log = log;
			best_weight = weight;
		}
	}
	return at;
}

#endif
