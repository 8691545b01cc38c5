package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"reflect"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/mapcache"
)

// carriedTTL is the TTL of mappings that are carried over: the tables don't know how
// much of it was left. Those in use are asked for again within it.
const carriedTTL = time.Minute

// tableLayout tells tables apart that can't be read alike.
var tableLayout = layoutOf(bpfSettings{}, bpfEid{}, bpfPrefix{}, bpfEntry{}, bpfSet{}, bpfLocator{})

func layoutOf(vs ...any) uint32 {
	h := fnv.New32a()
	for _, v := range vs {
		writeLayout(h, reflect.TypeOf(v))
	}
	return h.Sum32()
}

func writeLayout(w interface{ Write([]byte) (int, error) }, t reflect.Type) {
	fmt.Fprintf(w, "%v %d\n", t.Kind(), t.Size())
	if t.Kind() == reflect.Array {
		writeLayout(w, t.Elem())
	}
	if t.Kind() == reflect.Struct {
		for f := range t.Fields() {
			fmt.Fprintf(w, "%s %d ", f.Name, f.Offset)
			writeLayout(w, f.Type)
		}
	}
}

// errOtherLayout says that tables are those of another version.
var errOtherLayout = errors.New("the tables of an earlier process are of another version")

// carried reads the map-cache out of the tables that an earlier process pinned. It
// is empty if there are none.
func (p *pins) carried() ([]mapcache.Mapping, error) {
	state, err := ebpf.LoadPinnedMap(p.file(pinState), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, nil // there are none, or they are not whole
	}
	defer func() { _ = state.Close() }()
	var st bpfSettings
	if int(state.ValueSize()) != int(reflect.TypeFor[bpfSettings]().Size()) {
		return nil, errOtherLayout
	}
	if err := state.Lookup(uint32(0), &st); err != nil {
		return nil, err
	}
	if st.Layout != tableLayout {
		return nil, errOtherLayout
	}
	var o bpfObjects
	for name, to := range map[string]**ebpf.Map{"entries": &o.Entries, "prefixes": &o.Prefixes, "sets": &o.Sets, "locators": &o.Locators} {
		if *to, err = ebpf.LoadPinnedMap(p.file(name), &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
			return nil, err
		}
		defer func() { _ = (*to).Close() }()
	}
	return readMappings(&o)
}

// readMappings reads the map-cache out of tables. What takes the slow path is not
// among it: that is asked for again.
func readMappings(o *bpfObjects) ([]mapcache.Mapping, error) {
	var ms []mapcache.Mapping
	add := func(e bpfEid, bits int, v *bpfEntry) {
		key, ok := keyOf(e, bits)
		if !ok {
			return
		}
		if rlocs := rlocsOf(o, v.Set); len(rlocs) > 0 {
			ms = append(ms, mapcache.Mapping{Key: key, RLOCs: rlocs, TTL: carriedTTL})
		}
	}
	err := eachEntry(o.Entries, func(_ uint32, v bpfEntry) {
		bits := 32
		if familyOf(v.Eid) == 6 {
			bits = 128
		}
		if v.Eid.Scope != 0 {
			add(v.Eid, bits, &v)
		}
	})
	if err != nil {
		return nil, err
	}
	return ms, eachEntry(o.Prefixes, func(k bpfPrefix, id uint32) {
		var v bpfEntry
		if o.Entries.Lookup(id, &v) == nil {
			add(k.Eid, int(k.Len)-32, &v)
		}
	})
}

// eachEntry calls f for what is in a table.
func eachEntry[K, V any](m *ebpf.Map, f func(K, V)) error {
	const batch = 1024
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, batch), make([]V, batch)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return err
		}
		for i := range n {
			f(keys[i], values[i])
		}
		if last || n == 0 {
			return nil
		}
	}
}

func familyOf(e bpfEid) uint8 { return uint8(networkScope(e)) }

func networkScope(e bpfEid) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, e.Scope))
}

// keyOf is the inverse of eidKey.prefix. A default is nothing to be carried over:
// the configuration says it, or a NAT.
func keyOf(e bpfEid, bits int) (mapcache.Key, bool) {
	p := netip.PrefixFrom(addrOf(e.Addr, familyOf(e) == 6), bits)
	return mapcache.MakeKey(networkScope(e)>>8, p), p.IsValid() && bits > 0
}

// addrOf is the inverse of words.
func addrOf(w [4]uint32, v6 bool) netip.Addr {
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	if v6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

// rlocsOf reads what an entry leads to; nil if that can't be read.
func rlocsOf(o *bpfObjects, value uint32) []mapcache.RLOC {
	if value&direct != 0 {
		l, ok := locatorOf(o, value&^direct)
		if !ok {
			return nil
		}
		return []mapcache.RLOC{{Locator: l, Priority: 1, Weight: 100}} // the only one: they don't matter
	}
	var s bpfSet
	if value == 0 || o.Sets.Lookup(value, &s) != nil || s.Count > maxMembers {
		return nil
	}
	var rlocs []mapcache.RLOC
	for _, m := range s.Member[:s.Count] {
		l, ok := locatorOf(o, m.Locator)
		if !ok {
			return nil
		}
		rlocs = append(rlocs, mapcache.RLOC{Locator: l, Priority: m.Priority, Weight: m.Weight, Down: m.Usable == 0 && m.Priority != 255})
	}
	return rlocs
}

func locatorOf(o *bpfObjects, id uint32) (mapcache.Locator, bool) {
	var l bpfLocator
	if o.Locators.Lookup(id, &l) != nil {
		return mapcache.Locator{}, false
	}
	a := addrOf(l.Addr, l.V6 != 0)
	return mapcache.Locator{
		Addr: a, Port: networkOrder(l.Port), Format: mapcache.Format(l.Format), IfIndex: int(l.Ifindex), NAT: l.Nat != 0,
	}, !a.IsUnspecified()
}
