// Program dpbench measures data planes beside each other, as root, in network
// namespaces of its own:
//
//	go run ./internal/dpbench                  # all contenders, 5 rounds
//	go run ./internal/dpbench -rounds 1 -seconds 0.3 -contenders kernel,lisp -measures tcp1
//	go run ./internal/dpbench -contenders lisp -measures tcp1 -cpuprofile /tmp/lisp
//	go run ./internal/dpbench -nic             # a wire like a plain network card: no tunnel segmentation, GRO
//	go run ./internal/dpbench -measures ping,tcp1 -awake     # what idle processors that poll would give
//
// Each contender has two hosts with a wire (veth) between them: bare, with the
// kernel's VXLAN-GPE device on UDP port 4341, with wireguard-go, and with ours
// in the LISP and the LISP-GPE format, also with two queues of the device and two
// sockets of the port (-mq); and ours in the kernel (ebpf, ebpf-gpe), with 100,000
// map-cache entries and strict checks of sources. What runs in user space is a process of its own
// on each host. The contenders take turns within a round; the tables
// have medians of all rounds, and the ratios are medians of the ratios within a
// round.
//
// What is measured, from one host to the other, generators included:
//
//   - TCP Gbit/s of payload with 1 and 4 flows, and seconds of processor time for
//     one gigabyte with 1 flow: of the generators' and the data planes' processes.
//     What the kernel does in threads of its own is not in it.
//   - IP packets of 64 and 1400 octets a second, by UDP from one sender with
//     sendmmsg: the highest rate found at which less than 0.1 % are lost, and
//     what arrives when the sender does all it can. Once more to 16384 EIDs in turn.
//   - Round trips of ICMP echoes, one at a time.
package main
