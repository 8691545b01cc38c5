/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Verdicts, what is read of an inner packet, and its flow hash. */
#ifndef XTRKIT_PACKET_H
#define XTRKIT_PACKET_H

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_SCTP 132

#define LISP_PORT 4341
#define VXLAN_GPE_PORT 4790
#define UDP_LISP_LEN 16 /* both headers */

/* What may become of a packet: 0, a reason to drop it, or one not to touch it. */
enum verdict {
	OK = 0,
	/* encap.DropReason has the same numbers. */
	DROP_TTL = 4,
	DROP_SCOPE = 5,
	DROP_CHECKSUM = 15,
	DROP_ECN = 16,
	DROP_NOT_OUR_EID = 17,
	DROP_SEND = 30,
	DROP_DEVICE = 31,
	/* The slow path; ebpf.SlowReason counts from here. */
	SLOW = 64,
	SLOW_NOT_DATA = SLOW, /* not for us, or not LISP: not counted */
	SLOW_HEADER,	      /* headers that are not as usual: the slow path judges */
	SLOW_MISS,	      /* no mapping is known here */
	SLOW_ENTRY,	      /* one that the slow path acts upon, e.g. a negative one */
	SLOW_LOCATOR,	      /* no locator, or one that wants more than is done here */
	SLOW_SIZE,	      /* does not fit the path */
	SLOW_SOURCE,	      /* the inner source or the outer one needs a closer look */
	SLOW_FLAGS,	      /* the data header says something */
	SLOW_INSTANCE,	      /* control messages, or no overlay for it */
	SLOW_AGGREGATE,	      /* several packets behind one outer header */
	SLOW_FRAGMENT,	      /* outer fragments */
	SLOW_END,
};

struct packet {
	struct eid src, dst; /* without scope */
	__u32 len;	     /* by its header */
	__u32 ports;	     /* as the flow hash sees them, host order */
	__u32 proto;	     /* likewise; 0: the hash is by addresses alone */
	__u32 transport;     /* offset of the header of proto, if that is not 0 */
	__u16 frag;
	__u8 tos, ttl;
	__u8 next; /* the protocol field, or first next header */
	__u8 header_len;
	__u8 v6;
	__u8 sum_ok; /* IPv4 header checksum */
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* sum20 is the ones' complement sum of an IPv4 header without options. */
static __always_inline __u16 sum20(const __u32 *h)
{
	return fold((__u64)h[0] + h[1] + h[2] + h[3] + h[4]);
}

/* parse reads the IP header at an offset. Anything odd about it is SLOW_HEADER. */
__global __u32 parse(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 h[10] = {}, room = skb->len - at, i;

	if (!p)
		return SLOW_HEADER;
	if (skb->len < at + 20 || bpf_skb_load_bytes(skb, at, h, 20))
		return SLOW_HEADER;
	__u8 *b = (__u8 *)h;

	if (b[0] >> 4 == 4) {
		p->header_len = (b[0] & 15) * 4;
		p->len = bpf_ntohs(*(__u16 *)(b + 2));
		p->frag = bpf_ntohs(*(__u16 *)(b + 6));
		p->tos = b[1];
		p->ttl = b[8];
		p->next = b[9];
		p->src.addr[0] = h[3];
		p->dst.addr[0] = h[4];
		p->sum_ok = p->header_len == 20 && sum20(h) == 0xffff;
		if (p->header_len < 20 || p->len < p->header_len)
			return SLOW_HEADER;
	} else if (b[0] >> 4 == 6) {
		if (room < 40 || bpf_skb_load_bytes(skb, at + 20, h + 5, 20))
			return SLOW_HEADER;
		p->v6 = 1;
		p->header_len = 40;
		p->len = 40 + bpf_ntohs(*(__u16 *)(b + 4));
		p->tos = b[0] << 4 | b[1] >> 4;
		p->ttl = b[7];
		p->next = b[6];
		p->sum_ok = 1;
#pragma unroll
		for (i = 0; i < 4; i++) {
			p->src.addr[i] = h[2 + i];
			p->dst.addr[i] = h[6 + i];
		}
	} else {
		return SLOW_HEADER;
	}
	if (p->len > room || !p->ttl)
		return SLOW_HEADER;
	return OK;
}

/* routable: unicast, and not of link or host scope (encap.routableAddr). */
static __always_inline int routable(const struct eid *e, __u8 v6)
{
	__u32 a = bpf_ntohl(e->addr[0]);

	if (!v6)
		return a >> 24 != 0 && a >> 24 != 127 && a >> 16 != 0xa9fe && a >> 28 != 14 && a != 0xffffffff;
	return a >> 24 != 0xff && a >> 22 != 0xfe80 >> 6 &&
	       (e->addr[0] || e->addr[1] || bpf_ntohl(e->addr[2]) > 0xffff);
}

/* The flow hash: mapcache.FlowHash. */

static __always_inline int has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* find_ports finds the ports, behind at most six IPv6 extension headers. */
__global int find_ports(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 off, ports, i;
	__u8 next, ext[4];

	if (!p)
		return 0;
	off = p->header_len;
	next = p->next;
	if (!p->v6 && p->frag & 0x3fff)
		return 0;
	for (i = 0; i < 7; i++) {
		if (has_ports(next)) {
			if (p->len < off + 4 || bpf_skb_load_bytes(skb, at + off, &ports, 4))
				return 0;
			p->ports = bpf_ntohl(ports);
			p->proto = next;
			p->transport = off;
			return 1;
		}
		if (!p->v6 || p->len < off + 8 || bpf_skb_load_bytes(skb, at + off, ext, 4))
			return 0;
		switch (next) {
		case 0:	 /* Hop-by-Hop Options */
		case 43: /* Routing */
		case 60: /* Destination Options */
			off += (ext[1] + 1) * 8;
			break;
		case 51: /* Authentication */
			off += (ext[1] + 2) * 4;
			break;
		case 44: /* Fragment, if it is the whole packet */
			if (ext[2] || ext[3] & 0xf9)
				return 0;
			off += 8;
			break;
		default:
			return 0;
		}
		next = ext[0];
	}
	return 0;
}

static __always_inline __u32 rol(__u32 x, int n) { return x << n | x >> (32 - n); }

#define MIX(a, b, c)                                  \
	do {                                          \
		a -= c; a ^= rol(c, 4); c += b;       \
		b -= a; b ^= rol(a, 6); a += c;       \
		c -= b; c ^= rol(b, 8); b += a;       \
		a -= c; a ^= rol(c, 16); c += b;      \
		b -= a; b ^= rol(a, 19); a += c;      \
		c -= b; c ^= rol(b, 4); b += a;       \
	} while (0)

static __always_inline __u32 jhash_final(__u32 a, __u32 b, __u32 c)
{
	c ^= b; c -= rol(b, 14);
	a ^= c; a -= rol(c, 11);
	b ^= a; b -= rol(a, 25);
	c ^= b; c -= rol(b, 16);
	a ^= c; a -= rol(c, 4);
	b ^= a; b -= rol(a, 14);
	c ^= b; c -= rol(b, 24);
	return c;
}

static __always_inline __u32 flow_hash(const struct packet *p)
{
	__u32 a = 0xdeadbeef + ((p->v6 ? 10 : 4) << 2) + flow_seed, b = a, c = a;
	const __u32 *s = p->src.addr, *d = p->dst.addr;

	if (!p->v6) {
		a += bpf_ntohl(s[0]); b += bpf_ntohl(d[0]); c += p->ports;
		MIX(a, b, c);
	} else {
		a += bpf_ntohl(s[0]); b += bpf_ntohl(s[1]); c += bpf_ntohl(s[2]);
		MIX(a, b, c);
		a += bpf_ntohl(s[3]); b += bpf_ntohl(d[0]); c += bpf_ntohl(d[1]);
		MIX(a, b, c);
		a += bpf_ntohl(d[2]); b += bpf_ntohl(d[3]); c += p->ports;
		MIX(a, b, c);
	}
	return jhash_final(a + p->proto, b, c);
}

#endif
