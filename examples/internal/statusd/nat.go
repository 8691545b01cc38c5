package statusd

import (
	"net/netip"
	"time"
)

// Binding is how one of the own locators gets through NATs.
type Binding struct {
	Local      netip.Addr     `json:"local"`
	IfIndex    int            `json:"ifIndex"`
	State      string         `json:"state"`
	Text       string         `json:"text"` // one line for people
	Global     netip.AddrPort `json:"global,omitzero"`
	RTR        netip.Addr     `json:"rtr,omitzero"`
	RTT        time.Duration  `json:"rttNanoseconds,omitempty"`
	LastNotify time.Time      `json:"lastNotify,omitzero"` // the last Data-Map-Notify that verified
	KeepAlive  time.Duration  `json:"keepAliveNanoseconds,omitempty"`
	Reason     string         `json:"reason,omitempty"` // why it is not as it should be
}

// RTR is the state of an RTR.
type RTR struct {
	Locals   []Local           `json:"locals"`
	Relays   []Relay           `json:"relays"`
	MapCache []Entry           `json:"mapCache"`
	Traffic  Traffic           `json:"traffic"`
	Counters map[string]uint64 `json:"counters"`
	Refused  map[string]uint64 `json:"refused"` // by reason, without zeros
}

// Relay is a node behind a NAT as an RTR has it.
type Relay struct {
	IID       uint32         `json:"iid,omitempty"`
	Prefix    netip.Prefix   `json:"prefix"`
	XTRID     string         `json:"xtrID"`
	Local     netip.Addr     `json:"local"`  // the node's own address
	Global    netip.AddrPort `json:"global"` // the translated one
	MapServer netip.Addr     `json:"mapServer"`
	Priority  uint8          `json:"priority"`
	Weight    uint8          `json:"weight"`
	Verified  time.Time      `json:"verified"` // by the Map-Server, last
	Expires   time.Time      `json:"expires"`
}
