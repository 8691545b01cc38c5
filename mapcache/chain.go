package mapcache

// chains finds ids by a hash: equal hashes are chained. It keeps no keys, so that
// an index of a million locators costs some 25 octets for each.
type chains struct {
	first map[uint32]uint32 // by hash
	links slab[link]        // by id
}

type link struct{ hash, next uint32 }

func (c *chains) init() { c.first = make(map[uint32]uint32) }

func (c *chains) next(id uint32) uint32 { return c.links.at(id).next }

func (c *chains) put(hash, id uint32) {
	c.links.grow(id)
	*c.links.at(id) = link{hash: hash, next: c.first[hash]}
	c.first[hash] = id
}

func (c *chains) remove(id uint32) {
	gone := *c.links.at(id)
	*c.links.at(id) = link{}
	first := c.first[gone.hash]
	switch {
	case first != id:
		for c.next(first) != id {
			first = c.next(first)
		}
		c.links.at(first).next = gone.next
	case gone.next == 0:
		delete(c.first, gone.hash)
	default:
		c.first[gone.hash] = gone.next
	}
}
