// Package netlab builds small networks out of Linux network namespaces, in Go:
// hosts, routers, links with addresses, MTU and delay, routes and NATs, programs
// that run in them and captures of what they say. The privileged tests and the
// demo use it.
//
// # Where it all lives
//
// The process re-executes itself in a fresh network and mount namespace (as
// root), or in a fresh user namespace too (without root, or when
// XTRKIT_NETLAB=userns asks for it). Each host is one more network namespace,
// held by nothing but a file descriptor and a thread of that process, and the
// programs started in it are its children and die with it. So nothing on the
// machine is touched, and everything is gone when the process is, whether it
// returned, panicked or was killed by signal 9.
//
// Tests get there by TestMain, programs by a call at the start of main:
//
//	func TestMain(m *testing.M) { netlab.Main(m) }
//
//	func main() {
//		if err := netlab.Enter(); err != nil { ... } // names the missing feature
//		...
//	}
//
// and then describe what they need:
//
//	func TestPing(t *testing.T) {
//		lab := netlab.Test(t) // skips, and says why, where there can be no lab
//		a, r, b := lab.Host("a"), lab.Router("r"), lab.Host("b")
//		lab.Link(a, r, netlab.LinkConfig{
//			A: netlab.At("10.0.1.2/24", "2001:db8:1::2/64"),
//			B: netlab.At("10.0.1.1/24", "2001:db8:1::1/64"),
//		})
//		lab.Link(b, r, netlab.LinkConfig{
//			A:     netlab.At("10.0.2.2/24"),
//			B:     netlab.At("10.0.2.1/24"),
//			Delay: 20 * time.Millisecond,
//		})
//		a.DefaultVia("10.0.1.1", "2001:db8:1::1")
//		b.DefaultVia("10.0.2.1")
//		out := a.MustRun("ping", "-c", "1", "10.0.2.2")
//		...
//	}
//
// # Errors
//
// The methods that build (Host, Router, Link, DefaultVia, AddRoute, Masquerade,
// Sysctl, ...) do not return errors one by one. In a lab made by [Test] an error
// fails the test at once; in one made by [New] the first error sticks, everything
// after it does nothing, and [Lab.Err] returns it.
//
// # Concurrency
//
// Lab and Host methods may be called from several goroutines, but building is
// meant to be done by one.
//
// Only Linux has namespaces: elsewhere Enter and Probe return an error that wraps
// errors.ErrUnsupported, Main runs the tests in place, and Require skips.
package netlab
