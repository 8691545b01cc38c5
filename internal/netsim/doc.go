// Package netsim is a network in memory, in virtual time: nodes with addresses,
// links with latency, jitter, loss, duplication, reordering and an MTU, and NATs
// of the usual kinds. What a seed does once it does always: the same sequence of
// datagrams, with the same trace hash.
//
// A [Network] is an event queue. Nodes host protocol cores (see [Core]), which it
// steps directly, in one goroutine, from one event to the next; nothing sleeps,
// and a simulated day takes as long as its messages:
//
//	n := netsim.New(netsim.Config{Seed: 1})
//	a := n.AddNode("a")
//	a.AddInterface(n.Internet(), netsim.Link{Latency: 10 * time.Millisecond, Loss: 0.1}, addr)
//	a.Attach(core)
//	n.Run(time.Hour)
//
// Faults and attacks: links change and go down while the network runs, interfaces
// get other addresses, [Node.SetClock] has a clock jump, [Node.Replace] restarts a
// core, and [Network.Inject] sends with a forged source.
//
// The second way is for code with goroutines: [Node.ListenPacket] gives a
// net.PacketConn, and [Network.Serve] drives the network by the clock. In a
// testing/synctest bubble that clock is virtual too. The order of things that
// happen at the same instant is then up to the scheduler, and the trace is not
// reproducible.
//
// Not here: TCP, bandwidth and queues, fragmentation (what is larger than an
// MTU is dropped).
package netsim
