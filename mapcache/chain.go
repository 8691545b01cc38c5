package mapcache

// chains finds ids by a hash. It keeps no keys, so that an index of a million
// locators costs 12 octets for each, and it grows by one bucket at a time (linear
// hashing), so that no update has to wait until all are moved.
type chains struct {
	heads   slab[uint32] // by bucket: the first id, or 0
	links   slab[link]   // by id
	n       uint32       // ids in it
	buckets uint32       // round..2*round-1
	round   uint32       // a power of 2
}

type link struct{ hash, next uint32 }

func (c *chains) init() {
	c.buckets, c.round = 1, 1
	c.heads.grow(0)
}

func (c *chains) head(hash uint32) *uint32 {
	b := hash & (2*c.round - 1)
	if b >= c.buckets { // not split yet in this round
		b &= c.round - 1
	}
	return c.heads.at(b)
}

// find returns the id with that hash for which equal is true, or 0.
func (c *chains) find(hash uint32, equal func(id uint32) bool) uint32 {
	for id := *c.head(hash); id != 0; {
		l := c.links.at(id)
		if l.hash == hash && equal(id) {
			return id
		}
		id = l.next
	}
	return 0
}

func (c *chains) put(hash, id uint32) {
	c.links.grow(id)
	head := c.head(hash)
	*c.links.at(id) = link{hash: hash, next: *head}
	*head = id
	if c.n++; c.n > c.buckets {
		c.split()
	}
}

// split moves half of a bucket to a new one.
func (c *chains) split() {
	from := c.heads.at(c.buckets - c.round)
	c.heads.grow(c.buckets)
	if c.buckets++; c.buckets == 2*c.round {
		c.round = c.buckets
	}
	id := *from
	*from = 0
	for id != 0 {
		l := c.links.at(id)
		head, next := c.head(l.hash), l.next
		l.next, *head = *head, id
		id = next
	}
}

func (c *chains) remove(id uint32) {
	gone := c.links.at(id)
	at := c.head(gone.hash)
	for *at != id {
		at = &c.links.at(*at).next
	}
	*at = gone.next
	*gone = link{}
	c.n--
}
