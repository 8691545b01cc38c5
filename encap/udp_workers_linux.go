package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// openReceivers opens the sockets of one address and port: several share what
// arrives, each outer source and its port always to the same one.
func openReceivers(cfg UDPConfig, at netip.AddrPort, format mapcache.Format) ([]*udpReceiver, error) {
	if cfg.Workers > 1 {
		// Alone first: a port that another process shares is not ours.
		conn, _, err := openSocket(at, func(int) error { return nil })
		if err != nil {
			return nil, err
		}
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	var opened []*udpReceiver
	for range cfg.Workers {
		r, err := newUDPReceiver(cfg, at, format)
		if err != nil {
			for _, r := range opened {
				_ = r.conn.Close()
			}
			return nil, err
		}
		opened = append(opened, r)
	}
	return opened, nil
}
