/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an RTR does with a packet for the EID of somebody else: it sends it on, with
 * another outer header in the place of the one that it came with
 * (draft-ermagan-lisp-nat-traversal-19 section 5.3.1; encap's ingress.relay).
 */
#ifndef XTRKIT_RELAY_H
#define XTRKIT_RELAY_H

/* behind_nat: one of the locators of an EID is behind a NAT, so that the EID is
 * registered here (mapcache.View.BehindNAT). */
static __always_inline int behind_nat(const struct eid *e, __u8 v6)
{
	__u32 set = leads_to(lookup(e, v6)), id = set & ~DIRECT, i;

	if (!set)
		return 0;
	if (set & DIRECT) {
		struct locator *l = bpf_map_lookup_elem(&locators, &id);

		return l && l->nat;
	}
	struct set *s = bpf_map_lookup_elem(&sets, &id);

	for (i = 0; s && i < MAX_MEMBERS; i++) {
		if (i >= s->count)
			break;
		struct locator *l = bpf_map_lookup_elem(&locators, &s->member[i].locator);

		if (l && l->nat)
			return 1;
	}
	return 0;
}

/* may_relay finds the way on, for who is registered here. What is to be dropped is
 * left to the slow path, which says why. */
static __always_inline __u32 may_relay(struct __sk_buff *skb, __u32 inner, const struct arrived *a, struct packet *p, struct instance *in, struct way *w)
{
	__u32 why;

	if (is_ours(p->src.addr, p->v6) || is_ours(p->dst.addr, p->v6))
		return SLOW_SOURCE;
	if (carries_data(skb, inner, p))
		return SLOW_HEADER;
	why = find_way(skb, in->header, p, w);
	if (why || w->remote->nat)
		return why;
	/* An RTR is no relay for everybody, and nothing goes back where it comes from. */
	if (!behind_nat(&p->src, p->v6) && !behind_nat(&p->dst, p->v6))
		return SLOW_SOURCE;
	return w->remote->v6 == a->src.v6 && same(w->remote->addr, a->src.addr) ? SLOW_SOURCE : OK;
}

/* relay sends a packet on whose inner header is at an offset. */
static __always_inline int relay(struct __sk_buff *skb, __u32 at, __u32 inner, struct instance *in, const struct arrived *a, struct packet *p)
{
	__u8 ttl = a->ttl < p->ttl ? a->ttl : p->ttl, tos;
	struct way w = {};
	struct count n;
	__u32 why, v6;
	int ecn;

	find_ports(skb, inner, p);
	why = may_relay(skb, inner, a, p, in, &w);
	if (why)
		return finish(why);
	v6 = w.remote->v6;
	if (!fits(skb, inner, p, &w))
		return finish(SLOW_SIZE);
	/* The kernel does not know of the change between IP versions in a tunnel. */
	if (skb->gso_size && v6 != a->src.v6)
		return finish(SLOW_AGGREGATE);
	if (ttl < 2)
		return finish(SLOW_HEADER); /* it ends here, as at any router, and the slow path says so */
	ecn = merge_ecn(p->tos, a->tos);
	if (ecn < 0)
		return finish(DROP_ECN);
	count_segments(skb, inner, p, &n);

	/* From here on the packet is ours. */
	ttl--;
	tos = (a->tos & 0xfc) | ecn;
	if (set_tos_ttl(skb, inner, p, tos, ttl))
		return finish(DROP_SEND);
	p->tos = tos;
	p->ttl = ttl;
	if (v6 != a->src.v6 && bpf_skb_change_proto(skb, bpf_htons(v6 ? ETH_P_IPV6 : ETH_P_IP), 0))
		return finish(DROP_SEND);
	if (put_outer(skb, at, p, &w))
		return finish(DROP_SEND);
	count_source(a, p, &n);
	return send_on(skb, &w, &n);
}

#endif
