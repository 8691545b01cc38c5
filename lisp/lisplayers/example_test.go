package lisplayers_test

import (
	"fmt"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/pcapgo"

	"github.com/xtrkit/xtrkit/lisp/lisplayers"
)

// What is in a capture.
func Example() {
	f, err := os.Open("../testdata/oor/05-rloc-probe-v4eid.pcap")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	for p := range gopacket.NewPacketSource(r, r.LinkType()).Packets() {
		if l, ok := p.Layer(lisplayers.LayerTypeLISPControl).(*lisplayers.LISPControl); ok {
			fmt.Println(l.Message)
		}
	}
	// Output:
	// Map-Request probe nonce 0x8fe7b77fb8b4e68f source none itr-rlocs 10.0.2.2 records 172.16.2.0/24
	// Map-Reply probe nonce 0x8fe7b77fb8b4e68f records 172.16.2.0/24 ttl 10 authoritative 10.0.3.2(1/100 LpR)
}
