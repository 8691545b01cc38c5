package ebpf

import (
	"fmt"
	"os"
	"strconv"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// envVictim makes the test program a process that attaches to the interface of the
// given index, says so, and waits to be killed.
const envVictim = "XTRKIT_EBPF_VICTIM"

func victim() {
	if os.Getenv(envVictim) == "probe" { // only says what Probe does
		fmt.Println(Probe())
		os.Exit(0)
	}
	var mode, ifindex int
	_, err := fmt.Sscanf(os.Getenv(envVictim), "%d %d", &mode, &ifindex)
	if err == nil {
		err = attachAsVictim(AttachMode(mode), ifindex)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("attached")
	select {}
}

// attachAsVictim sets up a data plane with a device of its own.
func attachAsVictim(mode AttachMode, ifindex int) error {
	dev, err := tun.Create(tun.Config{Name: "victim" + strconv.Itoa(ifindex)})
	if err != nil {
		return err
	}
	u, err := encap.NewUDP(encap.UDPConfig{})
	if err != nil {
		return err
	}
	cache := mapcache.New(mapcache.Config{})
	ec := encap.Config{Overlays: []encap.Overlay{{Device: dev, ProxyITR: true}}, View: cache.View, Underlay: u}
	f, err := encap.NewForwarder(ec)
	if err != nil {
		return err
	}
	d, err := New(Config{Forwarder: f, Encap: ec, Attach: mode, LANs: []LAN{{IfIndex: 1}}})
	if err != nil {
		return err
	}
	return d.SetLocals([]mapcache.Local{{IfIndex: ifindex, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}})
}
