//go:build !linux

package node

import "context"

// followLANs has nothing to do: there is no kernel's data plane.
func (n *Node) followLANs(context.Context) {}
