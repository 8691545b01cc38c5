package main

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ebpfName begins the names of ours that forward in the kernel. Their map-caches are
// full, and they check sources.
const ebpfName = "ebpf"

func inKernel(kind string) bool { return strings.HasPrefix(kind, ebpfName) }

// fillCache maps the other's EIDs to its locator: one by one for the kernel's data
// plane, else all at once.
func fillCache(cache *mapcache.Cache, cfg *childConfig, format mapcache.Format) error {
	eids := []netip.Prefix{netip.MustParsePrefix(cfg.PeerEID + "/32"), manyPrefix(cfg.PeerMany)}
	if inKernel(cfg.Kind) {
		eids = eids[:1]
		for i := range cacheEntries {
			eids = append(eids, netip.PrefixFrom(nth(cfg.PeerMany, i), 32))
		}
	}
	for _, p := range eids {
		err := cache.Insert(time.Now(), mapcache.Mapping{
			Key: mapcache.MakeKey(0, p), TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr(cfg.Remote), Format: format}, Priority: 1, Weight: 1}},
		})
		if err != nil {
			return err
		}
	}
	cache.Publish()
	return nil
}

// putInKernel puts the kernel's data plane before a Forwarder.
func putInKernel(f *encap.Forwarder, ec encap.Config, udp encap.UDPConfig, cache *mapcache.Cache, locals []mapcache.Local) (*ebpf.Dataplane, error) {
	d, err := ebpf.New(ebpf.Config{Forwarder: f, Encap: ec, UDP: udp, Cache: cache})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.SetLocals(locals), d.Apply(cache.Changes())); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
