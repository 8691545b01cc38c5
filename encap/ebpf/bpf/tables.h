/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tables that lisp.c reads, which package ebpf writes, and the counters. */
#ifndef XTRKIT_TABLES_H
#define XTRKIT_TABLES_H

#define MAX_MEMBERS 8
#define MAX_LOCALS 8
#define MAX_PORTS 64

/* ---- What the control plane says ---- */

/* Settings for the whole life of the programs. */
volatile const __u32 flow_seed;	      /* of the flow hash */
volatile const __u32 mark_mask;	      /* the part of a firewall mark that is an ifindex; 0: none */
volatile const __u32 check_source;    /* outer sources must be locators of inner ones */
volatile const __u32 vxlan_gpe;	      /* VXLAN-GPE is received too */
volatile const __u32 meter_cpus;     /* for how many CPUs there are counters of entries; 0: none */
volatile const __u32 meter_entries;  /* for how many entries */
volatile const __u32 meter_shared;   /* there are more CPUs than that */
volatile const __u32 log2_table[257]; /* log2(1+i/256) in units of 2^-16 */

/* Settings that change: which generation of locals is in force; all is slow; and for
 * programs that outlive their process when they end (0: never), and how to read what
 * they leave. */
struct settings {
	__u64 deadline; /* CLOCK_MONOTONIC */
	__u32 generation;
	__u32 slow;
	__u32 layout;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} state SEC(".maps");

/* A device whose packets are encapsulated, by ifindex. */
struct device {
	__u32 iid;
	__u32 proxy_itr;     /* from any source */
	__u32 header[6][2];  /* data header by 2*format+v6, network order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* Where packets of an instance are delivered, by Instance ID. */
struct instance {
	__u32 ifindex;
	__u32 mtu;
	__u32 proxy_etr;
	__u32 relay;	     /* of an RTR: what is not for an EID of ours may be sent on */
	__u32 header[6][2];  /* with this data header, as of a device */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct instance);
} instances SEC(".maps");

/* An EID: scope is instance<<8 | 4 or 6, network order; an IPv4 address is addr[0]. */
struct eid {
	__u32 scope;
	__u32 addr[4];
};

struct prefix {
	__u32 len; /* 32 for the scope, and the prefix length */
	struct eid eid;
};

/* Our own EID-Prefixes, and those that we are a Proxy-ETR for. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix);
	__type(value, __u32);
} own_eids SEC(".maps"), proxied SEC(".maps");

/* The map-cache. All entries by their number, so that all that is needed of one is in
 * the same line of the processor's cache. */
struct entry {
	struct eid eid; /* of a single EID; otherwise its scope is 0 */
	__u32 set;	/* index of sets, or DIRECT and a locator id; 0: slow path */
	__u32 next;	/* of the same chain of hosts; 0: none */
	__u32 used;	/* non-zero: packets met it; unless they are counted by entry */
};
#define DIRECT 0x80000000

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* all of these are set when loading */
	__type(key, __u32);
	__type(value, struct entry);
} entries SEC(".maps");

/* Single EIDs, which are the longest prefixes there are: the first entry of a chain,
 * by their hash. The maps' own hash table takes two lines of the cache more. */
volatile const __u32 hosts_mask; /* its length, a power of two, less one */
volatile const __u32 hosts_seed; /* so that nobody can choose EIDs of one chain */
#define MAX_CHAIN 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hosts SEC(".maps");

/* All others, and single ones whose chain is full. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

/* A locator of a mapping with several: mapcache.Share. */
struct member {
	__u32 locator;
	__u32 salt;
	__u16 end; /* its buckets end before this one, ... */
	__u16 of;  /* ... of as many for its Priority; 0: it has none */
	__u8 priority;
	__u8 weight;
	__u8 usable;
	__u8 pad;
};

struct set {
	__u32 count;
	__u32 best; /* Priority of the first choice; 255: none */
	struct member member[MAX_MEMBERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct set);
} sets SEC(".maps");

struct locator {
	__u32 addr[4];
	__u32 ifindex; /* 0: any */
	__u32 mtu;     /* of the path, 0 if it is that of the first link */
	__u16 port;    /* network order */
	__u8 v6;
	__u8 format;
	__u8 down;
	__u8 slow;
	__u8 nat; /* a NAT is on the way: packets leave from nat_port */
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locator);
} locators SEC(".maps");

/* Our own locators that are up, by family; one generation is written, one read. */
struct local {
	__u32 addr[4];
	__u32 ifindex;
	__u32 salt;
	__u32 mtu;
	__u16 weight;
	__u16 best; /* of the best Priority: packets may leave by it that name no interface */
	__u16 ports;
	__u16 nat_port;        /* network order */
	__u16 port[MAX_PORTS]; /* likewise */
};

struct local_list {
	__u32 count;
	struct local local[MAX_LOCALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4); /* 2*generation + v6 */
	__type(key, __u32);
	__type(value, struct local_list);
} locals SEC(".maps");

/* All our own locators, up or not, with the port that a NAT lets in; 0: none. */
struct address {
	__u32 v6;
	__u32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

/* The same again if there are few, which is quicker than a hash table. */
#define FEW 4
struct few_addresses {
	__u32 count; /* more than FEW: the table has to be asked */
	struct address address[FEW];
	__u32 nat_port[FEW];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct few_addresses);
} few SEC(".maps");

/* The locator that packets from an outer source are counted for. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, __u32);
} sources SEC(".maps");

/* ---- Counters ---- */

#define COUNT_ENCAP 96 /* counters beyond the verdicts */
#define COUNT_DECAP 97
#define COUNT_ECN_ODD 98
#define COUNTERS 99

struct count {
	__u64 packets, octets; /* of inner packets */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, struct count);
} counters SEC(".maps");

struct locator_count {
	struct count out, in;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locator_count); /* by locator id; 0 is for unknown sources */
} traffic SEC(".maps");

/* What went by entries of the map-cache, and came from EIDs of theirs: by entry id
 * and CPU, see meter.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locator_count);
} entry_traffic SEC(".maps");

#endif
