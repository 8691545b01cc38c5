// Package node puts a LISP mobile node together from the parts of the library:
// the TUN device (tun), the data plane (encap), the protocol (control.Engine)
// and the Runner that drives it, configured by conf and seen through statusd.
// There is no protocol logic in it; lispmn is this and a command line.
//
// # Locators
//
// The node's locators are the addresses of the interfaces that the
// configuration names, one per interface and address family: the first that is
// neither loopback nor link-local nor an EID of the node. Package multihome
// follows the interfaces: what is pulled out, renumbered, loses its default route
// or comes later is told to the Runner within milliseconds.
//
// # Firewall marks and policies
//
// What firewall-marks and uplink-policy say is a multihome.Policy, which the data
// plane asks about packets. Each interface that a locator may come from, and each
// mark that a policy names, has a TUN device of its own while it is there
// (tun.Interface.SetMarks), since packets read from one have lost their mark.
// Without any of these options nobody asks, and there is one device.
package node
