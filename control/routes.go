package control

import (
	"fmt"

	"github.com/xtrkit/xtrkit/lisp"
)

// Role is what a core is to the Runner: who gets which messages.
type Role uint8

// Roles of a core.
const (
	RoleXTR       Role = iota // ITR and ETR: Engine
	RoleMapServer             // Map-Server and Map-Resolver
	RoleRTR                   // Re-encapsulating Tunnel Router
	numRoles
)

func (r Role) String() string {
	switch r {
	case RoleXTR:
		return "xtr"
	case RoleMapServer:
		return "map-server"
	case RoleRTR:
		return "rtr"
	default:
		return fmt.Sprintf("Role(%d)", uint8(r))
	}
}

// routes says which cores are offered a message, in that order, until one claims
// it. An xTR comes before a Map-Server of the same process: a Map-Request that
// this Map-Server forwarded to it would otherwise go round and round. An RTR comes
// before both for what can be between nodes and Map-Servers: it claims only what
// is marked as an RTR's, or answers what it has relayed.
var routes = [16][]Role{
	lisp.TypeMapRequest:          {RoleXTR, RoleRTR, RoleMapServer},
	lisp.TypeMapReply:            {RoleXTR, RoleRTR, RoleMapServer},
	lisp.TypeMapRegister:         {RoleMapServer, RoleRTR},
	lisp.TypeMapNotify:           {RoleRTR, RoleXTR, RoleMapServer},
	lisp.TypeMapNotifyAck:        {RoleMapServer},
	lisp.TypeMapReferral:         {RoleMapServer},
	lisp.TypeInfo:                {RoleRTR, RoleXTR, RoleMapServer},
	lisp.TypeEncapsulatedControl: {RoleRTR, RoleXTR, RoleMapServer},
}
