/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The LISP data plane in the kernel: programs for tc that encapsulate what leaves
 * by the overlay's device (encap_device) or comes from a LAN (encap_lan), and
 * decapsulate what arrives at an uplink (decap_ether, decap_raw), or send it on. Read
 * it from top to bottom: counters, the map-cache, encapsulation, decapsulation. tables.h
 * has what the control plane says, packet.h the inner header and the flow hash, choice.h
 * Priority and Weight, outer.h the outer header, relay.h what an RTR does.
 *
 * What is not quite ordinary is left alone: it takes the slow path, which is the
 * device's queue or the socket of port 4341, and package encap does with it what
 * the RFCs want. So every rule here has its twin there, and where they differ
 * encap is right.
 */
#include "kernel.h"
#include "tables.h"
#include "packet.h"
#include "choice.h"

static __always_inline void add(struct count *c, const struct count *n)
{
	c->packets += n->packets;
	c->octets += n->octets;
}

static __always_inline void count(__u32 what, const struct count *n)
{
	struct count *c = bpf_map_lookup_elem(&counters, &what);

	if (c)
		add(c, n);
}

static __always_inline void count_one(__u32 what)
{
	struct count *c = bpf_map_lookup_elem(&counters, &what);

	if (c)
		c->packets++;
}

/* finish turns a verdict that is not OK into the return value of a program. */
static __always_inline int finish(__u32 verdict)
{
	if (verdict == SLOW_NOT_DATA)
		return TC_ACT_UNSPEC;
	count_one(verdict);
	return verdict < SLOW ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* abandoned: nobody has looked after us for so long that the map-cache is stale. */
static __always_inline int abandoned(const struct settings *st)
{
	return st->deadline && bpf_ktime_get_coarse_ns() > st->deadline;
}

#include "mapcache.h"
#include "meter.h"

/* our_port returns the port that a NAT lets in to one of our locators, 0 if there is
 * none; and -1 if an address is none of our locators. */
__global int our_port(const struct address *a)
{
	struct few_addresses *f = bpf_map_lookup_elem(&few, &(__u32){ 0 });
	__u32 i;

	if (!a || !f)
		return -1;
	if (f->count > FEW) {
		struct address k = *a; /* before 6.2 a key has to be on the stack */
		__u32 *port = bpf_map_lookup_elem(&addresses, &k);

		return port ? *port : -1;
	}
	for (i = 0; i < FEW; i++) {
		if (i >= f->count)
			break;
		if (f->address[i].v6 == a->v6 && same(f->address[i].addr, a->addr))
			return f->nat_port[i];
	}
	return -1;
}

static __always_inline int is_ours(const __u32 *addr, __u8 v6)
{
	struct address k = { .v6 = v6, .addr = { addr[0], addr[1], addr[2], addr[3] } };

	return our_port(&k) >= 0;
}

/* carries_data: what is in a packet goes to a data port. The slow path counts the
 * headers then (RFC 9300 section 4). */
static __always_inline int carries_data(struct __sk_buff *skb, __u32 at, const struct packet *p)
{
	__u16 port;

	if (p->next != IPPROTO_UDP || p->frag & 0x1fff || p->len < p->header_len + UDP_LISP_LEN)
		return 0;
	if (p->proto == IPPROTO_UDP && p->transport == p->header_len) /* find_ports has seen it */
		port = bpf_htons(p->ports & 0xffff);
	else if (bpf_skb_load_bytes(skb, at + p->header_len + 2, &port, 2))
		return 1;
	return port == bpf_htons(LISP_PORT) || port == bpf_htons(VXLAN_GPE_PORT);
}

/* may_enter says whether a packet may enter the overlay (encap.admit). */
static __always_inline __u32 may_enter(struct __sk_buff *skb, __u32 at, const struct device *dev, const struct packet *p)
{
	if (!routable(&p->src, p->v6) || !routable(&p->dst, p->v6))
		return SLOW_HEADER;
	if (!covers(&own_eids, &p->src, p->v6) && (!dev->proxy_itr || is_ours(p->src.addr, p->v6)))
		return SLOW_SOURCE;
	if (is_ours(p->dst.addr, p->v6))
		return SLOW_SOURCE;
	return carries_data(skb, at, p) ? SLOW_HEADER : OK;
}

/* headers_len is the length of what each segment of a packet starts with. */
static __always_inline __u32 headers_len(struct __sk_buff *skb, __u32 at, const struct packet *p)
{
	__u8 words = 0;

	if (p->proto == IPPROTO_UDP)
		return p->transport + 8;
	if (p->proto != IPPROTO_TCP || bpf_skb_load_bytes(skb, at + p->transport + 12, &words, 1))
		return 0xffff;
	return p->transport + (words >> 4) * 4;
}

/* count_segments counts a packet as the packets that it becomes on its way. */
static __always_inline void count_segments(struct __sk_buff *skb, __u32 at, const struct packet *p, struct count *c)
{
	c->packets = 1;
	c->octets = p->len;
	if (skb->gso_size && skb->gso_segs > 1) {
		c->packets = skb->gso_segs;
		c->octets += (skb->gso_segs - 1) * headers_len(skb, at, p);
	}
}

/* ---- Encapsulation (RFC 9300 section 5.3) ---- */

#include "outer.h"

/* find_way asks the map-cache and our own locators. headers are the data headers of
 * the instance by 2*format+v6. */
static __always_inline __u32 find_way(struct __sk_buff *skb, __u32 (*headers)[2], struct packet *p, struct way *w)
{
	struct settings *st = bpf_map_lookup_elem(&state, &(__u32){ 0 });
	__u32 key, at, set;

	w->entry = lookup(&p->dst, p->v6);
	if (!w->entry || !st)
		return SLOW_MISS;
	set = leads_to(w->entry);
	if (!meter_cpus)
		meet(w->entry);
	if (!set || st->slow || abandoned(st))
		return SLOW_ENTRY;
	w->hash = flow_hash(p);
	w->id = set & DIRECT ? set & ~DIRECT : choose(set, w->hash);
	struct locator *r = bpf_map_lookup_elem(&locators, &w->id);

	if (!w->id || !r || r->down || r->slow || (r->v6 == p->v6 && same(r->addr, p->dst.addr)))
		return SLOW_LOCATOR;
	key = 2 * (st->generation & 1) + (r->v6 & 1);
	struct local_list *ls = bpf_map_lookup_elem(&locals, &key);

	if (!ls)
		return SLOW_LOCATOR;
	at = choose_local(key, r->ifindex ? r->ifindex : skb->mark & mark_mask, w->hash);
	if (at >= MAX_LOCALS)
		return SLOW_LOCATOR;
	w->remote = r;
	w->local = &ls->local[at];
	at = 2 * r->format + p->v6;
	if (at > 5)
		return SLOW_LOCATOR;
	w->header[0] = headers[at][0];
	w->header[1] = headers[at][1];
	return OK;
}

/* send_on sends a packet with its outer header, of n packets, to who has the next link. */
static __always_inline int send_on(struct __sk_buff *skb, const struct way *w, const struct count *n)
{
	__u16 ethertype = bpf_htons(w->remote->v6 ? ETH_P_IPV6 : ETH_P_IP);

	if (bpf_skb_store_bytes(skb, 12, &ethertype, 2, 0))
		return finish(DROP_SEND);
	struct locator_count *t = bpf_map_lookup_elem(&traffic, &w->id);

	if (t)
		add(&t->out, n);
	count_to(w->entry, n);
	count(COUNT_ENCAP, n);
	return bpf_redirect_neigh(w->local->ifindex, NULL, 0, 0);
}

/* forward does what a router does to a packet from a LAN. */
static __always_inline int forward(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u16 sum;

	p->ttl--;
	if (p->v6)
		return bpf_skb_store_bytes(skb, at + 7, &p->ttl, 1, BPF_F_RECOMPUTE_CSUM);
	if (bpf_skb_load_bytes(skb, at + 10, &sum, 2))
		return -1;
	sum = bpf_htons(fold((__u32)bpf_ntohs(sum) + 0x100)); /* RFC 1141 */
	return bpf_skb_store_bytes(skb, at + 8, &p->ttl, 1, 0) || bpf_skb_store_bytes(skb, at + 10, &sum, 2, 0);
}

/* encapsulate takes a packet at an offset: 0 on the overlay's device, which has no
 * link-layer header, ETH_HLEN on a LAN, whose packets we forward as a router. */
static __always_inline int encapsulate(struct __sk_buff *skb, __u32 at)
{
	__u32 ifindex = skb->ifindex, why;
	struct device *dev = bpf_map_lookup_elem(&devices, &ifindex);
	struct packet p = {};
	struct way w = {};
	struct count n;

	if (!dev || skb->vlan_present || (at && skb->pkt_type != PACKET_HOST))
		return finish(SLOW_NOT_DATA);
	why = parse(skb, at, &p);
	if (at && skb->protocol != bpf_htons(p.v6 ? ETH_P_IPV6 : ETH_P_IP))
		return finish(SLOW_NOT_DATA); /* no IP, whatever it looks like */
	if (why)
		return finish(why);
	p.src.scope = p.dst.scope = scope(dev->iid, p.v6);
	if (at && p.ttl < 2)
		return finish(SLOW_HEADER);
	/* No route leads from a LAN to the overlay's device with what is for an EID of ours,
	 * this host's or another LAN's, however much a mapping covers. */
	if (at && covers(&own_eids, &p.dst, p.v6))
		return finish(SLOW_NOT_DATA);
	find_ports(skb, at, &p);
	why = may_enter(skb, at, dev, &p);
	if (!why)
		why = find_way(skb, dev->header, &p, &w);
	if (why)
		return finish(why);
	if (!fits(skb, at, &p, &w))
		return finish(SLOW_SIZE);
	if (skb->len > at + p.len && (skb->gso_size || bpf_skb_change_tail(skb, at + p.len, 0)))
		return finish(SLOW_HEADER); /* else it was the padding of a short frame */

	count_segments(skb, at, &p, &n);

	if (make_room(skb, &w))
		return finish(SLOW_HEADER);

	/* From here on the packet is ours. */
	if (at && forward(skb, at + (w.remote->v6 ? sizeof(struct outer6) : sizeof(struct outer4)), &p))
		return finish(DROP_SEND);
	if (put_outer(skb, at, &p, &w))
		return finish(DROP_SEND);
	return send_on(skb, &w, &n);
}

SEC("tc")
int encap_device(struct __sk_buff *skb) { return encapsulate(skb, 0); }

SEC("tc")
int encap_lan(struct __sk_buff *skb) { return encapsulate(skb, ETH_HLEN); }

/* ---- Decapsulation ---- */

/* What of the outer headers counts after they are gone. */
struct arrived {
	struct address src, dst;
	__u32 len; /* of the outer IP header */
	__u32 iid;
	__u32 from; /* entry of the inner source, if that is checked */
	__u8 tos, ttl;
	__u8 next; /* the inner version that LISP-GPE states, or 0 */
	__u8 onward; /* not for us: for an RTR to send on */
};

/* parse_outer accepts a UDP datagram for one of our locators, at the data port. */
static __always_inline __u32 parse_outer(struct __sk_buff *skb, __u32 at, struct arrived *a)
{
	__u32 h[10] = {}, udp[2], v6 = skb->protocol == bpf_htons(ETH_P_IPV6), total, i;
	__u8 *b = (__u8 *)h;

	if (skb->vlan_present || skb->pkt_type != PACKET_HOST || (!v6 && skb->protocol != bpf_htons(ETH_P_IP)))
		return SLOW_NOT_DATA;
	if (bpf_skb_load_bytes(skb, at, h, v6 ? 40 : 20))
		return SLOW_NOT_DATA;
	a->src.v6 = a->dst.v6 = v6;
	if (v6) {
		if (b[6] != IPPROTO_UDP)
			return SLOW_NOT_DATA; /* extension headers, fragments: the socket */
		a->len = 40;
		a->tos = b[0] << 4 | b[1] >> 4;
		a->ttl = b[7];
		total = 40 + bpf_ntohs(*(__u16 *)(b + 4));
#pragma unroll
		for (i = 0; i < 4; i++) {
			a->src.addr[i] = h[2 + i];
			a->dst.addr[i] = h[6 + i];
		}
	} else {
		if (b[9] != IPPROTO_UDP || b[0] != 0x45)
			return SLOW_NOT_DATA; /* options: the socket */
		a->len = 20;
		a->tos = b[1];
		a->ttl = b[8];
		total = bpf_ntohs(*(__u16 *)(b + 2));
		a->src.addr[0] = h[3];
		a->dst.addr[0] = h[4];
	}
	int nat_port = our_port(&a->dst);

	if (nat_port < 0)
		return SLOW_NOT_DATA;
	if (!v6 && bpf_ntohs(*(__u16 *)(b + 6)) & 0x3fff)
		return SLOW_FRAGMENT;
	if (bpf_skb_load_bytes(skb, at + a->len, udp, 8))
		return SLOW_NOT_DATA;
	__u16 port = bpf_ntohl(udp[0]) & 0xffff;

	if (port != LISP_PORT && port != nat_port && (port != VXLAN_GPE_PORT || !vxlan_gpe))
		return SLOW_NOT_DATA;
	if (port == VXLAN_GPE_PORT)
		a->next = 0xff; /* a Next Protocol has to be there */
	if (!v6 && sum20(h) != 0xffff)
		return SLOW_HEADER;
	if (!a->ttl || skb->len != at + total || bpf_ntohl(udp[1]) >> 16 != total - a->len)
		return SLOW_HEADER;
	return OK;
}

/* parse_data reads the data header. Only what the public Internet may say (RFC 9300
 * section 4.1) is taken: an Instance ID, and a Next Protocol of IPv4 or IPv6. */
static __always_inline __u32 parse_data(struct __sk_buff *skb, __u32 at, struct arrived *a)
{
	__u32 h[2], next;

	if (bpf_skb_load_bytes(skb, at + a->len + 8, h, 8))
		return SLOW_HEADER;
	__u32 hi = bpf_ntohl(h[0]), flags = hi >> 24;

	if (flags & ~0x0c || (a->next && flags != 0x0c))
		return SLOW_FLAGS;
	a->next = 0;
	if (flags & 0x04) {
		next = hi & 0xff;
		if (hi & 0xffff00 || next < 1 || next > 2)
			return SLOW_FLAGS;
		a->next = next == 1 ? 4 : 6;
	}
	a->iid = flags & 0x08 ? bpf_ntohl(h[1]) >> 8 : 0;
	return OK;
}

/* lists_source: one of the locators of the inner source is the outer source (RFC 9300
 * section 16). */
static __always_inline int lists_source(const struct packet *p, struct arrived *a)
{
	__u32 id, set, i;

	a->from = lookup(&p->src, p->v6);
	set = leads_to(a->from);
	if (!set)
		return 0;
	id = set & ~DIRECT;
	if (set & DIRECT) {
		struct locator *l = bpf_map_lookup_elem(&locators, &id);

		return l && l->v6 == a->src.v6 && same(l->addr, a->src.addr);
	}
	struct set *s = bpf_map_lookup_elem(&sets, &id);

	for (i = 0; s && i < MAX_MEMBERS; i++) {
		if (i >= s->count)
			break;
		struct locator *l = bpf_map_lookup_elem(&locators, &s->member[i].locator);

		if (l && l->v6 == a->src.v6 && same(l->addr, a->src.addr))
			return 1;
	}
	return 0;
}

/* may_leave says whether an inner packet may leave the tunnel. */
static __always_inline __u32 may_leave(struct instance *in, const struct packet *p, struct arrived *a)
{
	if (a->next && a->next != (p->v6 ? 6 : 4))
		return SLOW_HEADER;
	if (p->header_len == 20 && !p->sum_ok)
		return DROP_CHECKSUM;
	if (!p->v6 && p->header_len != 20)
		return SLOW_HEADER;
	if (!routable(&p->src, p->v6) || !routable(&p->dst, p->v6))
		return DROP_SCOPE;
	a->onward = !covers(&own_eids, &p->dst, p->v6) && (!in->proxy_etr || !covers(&proxied, &p->src, p->v6));
	if (a->onward && !in->relay)
		return DROP_NOT_OUR_EID;
	if (check_source && !lists_source(p, a))
		return SLOW_SOURCE;
	return OK;
}

/* merge_ecn is Figure 4 of RFC 6040: the ECN field to forward, or -1 to drop. */
static __always_inline int merge_ecn(__u8 inner, __u8 outer)
{
	inner &= 3;
	outer &= 3;
	/* Not-ECT with any mark, ECT(1) with ECT(0), CE with ECT(1): no ingress sends it. */
	if ((!inner && outer) || (inner == 1 && outer == 2) || (inner == 3 && outer == 1))
		count_one(COUNT_ECN_ODD);
	if (outer == 3)
		return inner ? 3 : -1;
	return inner == 2 && outer == 1 ? 1 : inner;
}

/* set_tos_ttl rewrites the inner header, whose checksum stays valid. */
static __always_inline int set_tos_ttl(struct __sk_buff *skb, __u32 at, const struct packet *p, __u8 tos, __u8 ttl)
{
	__u8 h[20];

	if (tos == p->tos && ttl == p->ttl)
		return 0;
	if (bpf_skb_load_bytes(skb, at, h, 20))
		return -1;
	if (p->v6) {
		h[0] = (h[0] & 0xf0) | tos >> 4;
		h[1] = (h[1] & 0x0f) | tos << 4;
		h[7] = ttl;
		return bpf_skb_store_bytes(skb, at, h, 8, BPF_F_RECOMPUTE_CSUM);
	}
	__u32 sum = (__u16)~(h[10] << 8 | h[11]);

	sum += (__u16)~(h[0] << 8 | h[1]) + (__u32)(__u16)~(h[8] << 8 | h[9]);
	h[1] = tos;
	h[8] = ttl;
	sum += (h[0] << 8 | h[1]) + (h[8] << 8 | h[9]); /* RFC 1624, equation 3 */
	sum = (__u16)~fold(sum);
	h[10] = sum >> 8;
	h[11] = sum;
	return bpf_skb_store_bytes(skb, at, h, 12, 0);
}

/* count_source counts what came from a locator, and from an inner source. */
static __always_inline void count_source(const struct arrived *a, const struct packet *p, const struct count *n)
{
	__u32 *id = bpf_map_lookup_elem(&sources, &a->src), none = 0;
	struct locator_count *t = bpf_map_lookup_elem(&traffic, id ? id : &none);

	if (t)
		add(&t->in, n);
	count_from(p, a->from, n);
}

/* pop_outer removes the outer headers of a packet of an IP version. What fails before
 * anything is done is for the slow path. */
static __always_inline __u32 pop_outer(struct __sk_buff *skb, const struct arrived *a, __u8 v6)
{
	const __u64 other = v6 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV6 : BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
	const __s32 len = a->len + UDP_LISP_LEN;

	if (!bpf_skb_adjust_room(skb, -len, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | (v6 == a->src.v6 ? 0 : other)))
		return OK;
	if (v6 == a->src.v6)
		return SLOW_HEADER;
	/* Before Linux 6.3: first the version changes, and with it the length of the outer header. */
	if (bpf_skb_change_proto(skb, bpf_htons(v6 ? ETH_P_IPV6 : ETH_P_IP), 0))
		return SLOW_HEADER;
	return bpf_skb_adjust_room(skb, v6 ? -(len + 20) : -(len - 20), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? DROP_DEVICE : OK;
}

#include "relay.h"

static __always_inline int decapsulate(struct __sk_buff *skb, __u32 at)
{
	struct arrived a = {};
	struct packet p = {};
	__u32 why = parse_outer(skb, at, &a), none = 0, inner;
	struct settings *st = bpf_map_lookup_elem(&state, &none);
	struct count n;
	int ecn;

	if (!why)
		why = parse_data(skb, at, &a);
	if (why)
		return finish(why);
	if (!st || abandoned(st))
		return finish(SLOW_NOT_DATA);
	struct instance *in = bpf_map_lookup_elem(&instances, &a.iid);

	if (!in)
		return finish(SLOW_INSTANCE);
	inner = at + a.len + UDP_LISP_LEN;
	why = parse(skb, inner, &p);
	if (why)
		return finish(why);
	p.src.scope = p.dst.scope = scope(a.iid, p.v6);
	/* Several packets behind one outer header; or UDP segments, whose outer headers
	 * the kernel does not know to be gone. */
	if (skb->len != inner + p.len || (skb->gso_size && p.next != IPPROTO_TCP))
		return finish(SLOW_AGGREGATE);
	why = may_leave(in, &p, &a);
	if (why)
		return finish(why);
	if (a.onward)
		return relay(skb, at, inner, in, &a, &p);
	if (!skb->gso_size && p.len > in->mtu)
		return finish(SLOW_SIZE);
	ecn = merge_ecn(p.tos, a.tos);
	if (ecn < 0)
		return finish(DROP_ECN);
	if (skb->gso_size)
		find_ports(skb, inner, &p);
	count_segments(skb, inner, &p, &n);
	why = pop_outer(skb, &a, p.v6);
	if (why)
		return finish(why);
	/* DSCP of the outer header, the smaller TTL (RFC 9300 section 5.3). */
	if (set_tos_ttl(skb, at, &p, (a.tos & 0xfc) | ecn, a.ttl < p.ttl ? a.ttl : p.ttl))
		return finish(DROP_DEVICE);
	count_source(&a, &p, &n);
	count(COUNT_DECAP, &n);
	return bpf_redirect(in->ifindex, BPF_F_INGRESS);
}

SEC("tc")
int decap_ether(struct __sk_buff *skb) { return decapsulate(skb, ETH_HLEN); }

SEC("tc")
int decap_raw(struct __sk_buff *skb) { return decapsulate(skb, 0); }

char _license[] SEC("license") = "Dual BSD/GPL";
