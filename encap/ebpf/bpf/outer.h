/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a packet leaves, and what is written in front of it (RFC 9300 section 5). */
#ifndef XTRKIT_OUTER_H
#define XTRKIT_OUTER_H

/* What is in front of the inner packet, from the outer IP header on, in words. */
struct outer4 {
	__u32 ip[5], udp[2], lisp[2];
};
struct outer6 {
	__u32 ip[10], udp[2], lisp[2];
};

/* way is how a packet leaves. */
struct way {
	struct locator *remote;
	struct local *local;
	__u32 id; /* of remote */
	__u32 entry;
	__u32 hash;
	__u32 header[2];
};

/* fits is the MTU rule of RFC 9300 section 7: what does not is for the slow path. */
static __always_inline int fits(struct __sk_buff *skb, __u32 at, const struct packet *p, const struct way *w)
{
	__u32 mtu = w->local->mtu, len = p->len, overhead = w->remote->v6 ? sizeof(struct outer6) : sizeof(struct outer4);

	if (skb->gso_size)
		len = headers_len(skb, at, p) + skb->gso_size;
	if (w->remote->mtu && w->remote->mtu < mtu)
		mtu = w->remote->mtu;
	return len + overhead <= mtu && p->len + overhead <= 0xffff;
}

/* source_port spreads flows over the ports of a locator (RFC 9300 section 12). */
static __always_inline __u16 source_port(struct local *l, __u32 hash)
{
	return l->port[(__u32)((__u64)(hash * 0x9e3779b1) * l->ports >> 32) & (MAX_PORTS - 1)];
}

/* put_udp writes the UDP header, whose checksum is 0, and the data header. */
static __always_inline void put_udp(__u32 *udp, const struct way *w, __u32 inner_len)
{
	__u16 port = w->remote->nat ? w->local->nat_port : source_port(w->local, w->hash);

	udp[0] = bpf_htonl((__u32)bpf_ntohs(port) << 16 | bpf_ntohs(w->remote->port));
	udp[1] = bpf_htonl((inner_len + UDP_LISP_LEN) << 16);
	udp[2] = w->header[0];
	udp[3] = w->header[1];
}

/* put_outer4 writes the outer header: TTL and traffic class with its ECN field are
 * copied (RFC 6040 section 4.1, normal mode), DF is set. */
static __always_inline int put_outer4(struct __sk_buff *skb, __u32 at, const struct packet *p, const struct way *w)
{
	struct outer4 o = {};

	o.ip[0] = bpf_htonl(0x45000000 | (__u32)p->tos << 16 | (p->len + sizeof(o)));
	o.ip[1] = bpf_htonl(0x4000);
	o.ip[2] = bpf_htonl((__u32)p->ttl << 24 | IPPROTO_UDP << 16);
	o.ip[3] = w->local->addr[0];
	o.ip[4] = w->remote->addr[0];
	o.ip[2] |= bpf_htonl((__u16)~bpf_ntohs(sum20(o.ip)));
	put_udp(o.udp, w, p->len);
	return bpf_skb_store_bytes(skb, at, &o, sizeof(o), BPF_F_RECOMPUTE_CSUM);
}

/* put_outer6 is put_outer4 for IPv6, with the flow hash as flow label (RFC 6438). */
static __always_inline int put_outer6(struct __sk_buff *skb, __u32 at, const struct packet *p, const struct way *w)
{
	struct outer6 o = {};
	__u32 i;

	o.ip[0] = bpf_htonl(0x60000000 | (__u32)p->tos << 20 | (w->hash & 0xfffff));
	o.ip[1] = bpf_htonl((p->len + UDP_LISP_LEN) << 16 | IPPROTO_UDP << 8 | p->ttl);
#pragma unroll
	for (i = 0; i < 4; i++) {
		o.ip[2 + i] = w->local->addr[i];
		o.ip[6 + i] = w->remote->addr[i];
	}
	put_udp(o.udp, w, p->len);
	return bpf_skb_store_bytes(skb, at, &o, sizeof(o), BPF_F_RECOMPUTE_CSUM);
}

/* put_outer writes the outer header at an offset, and the link-layer header's place
 * in front of it if that is missing. */
static __always_inline int put_outer(struct __sk_buff *skb, __u32 at, const struct packet *p, const struct way *w)
{
	return (w->remote->v6 ? put_outer6(skb, at, p, w) : put_outer4(skb, at, p, w)) ||
	       (!at && bpf_skb_change_head(skb, ETH_HLEN, 0));
}

/* make_room makes room for the outer header at an offset. The kernel refuses that for
 * large segments which are in a tunnel already, and then nothing has changed. */
static __always_inline int make_room(struct __sk_buff *skb, const struct way *w)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;

	return w->remote->v6
		? bpf_skb_adjust_room(skb, sizeof(struct outer6), BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
		: bpf_skb_adjust_room(skb, sizeof(struct outer4), BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
}

#endif
