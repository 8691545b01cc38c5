// Package node puts a LISP mobile node together from the parts of the library:
// the TUN device (tun), the data plane (encap), the protocol (control.Engine)
// and the Runner that drives it, configured by conf and seen through statusd.
// There is no protocol logic in it; lispmn is this and a command line.
//
// # Locators
//
// The node's locators are the addresses of the interfaces that the
// configuration names, one per interface and address family: the first that is
// neither loopback nor link-local nor an EID of the node. They are read when
// the node is made and by Node.Reload, which lispmn calls on SIGHUP; an address
// that changes in between is not noticed.
package node
