package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// nicOff is what a plain network card does not do for a tunnel, and nicOn what its
// driver does: then packets cross the wire one by one, as on a real one, and are put
// together again where they arrive.
var (
	nicOff = []string{
		"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp-ecn-segmentation",
		"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-udp-segmentation", "tx-gso-partial",
	}
	nicOn = []string{"rx-gro"}
)

// likeNIC makes an end of a wire like a plain network card.
func likeNIC(i *netlab.Interface) error {
	err := i.Host.Do(func() error { return setFeatures(i.Name, nicOff, nicOn) })
	if err != nil {
		return fmt.Errorf("%s like a network card: %w", i.Name, err)
	}
	return nil
}

// Commands of linux/ethtool.h. A command is followed by its arguments.
const (
	ethtoolGetStrings    = 0x1b
	ethtoolSetFeatures   = 0x3b
	ethtoolGetStringsLen = 0x37
	ethtoolFeatureNames  = 4 // a set of strings
	ethtoolNameLen       = 32
)

// setFeatures switches offloads of an interface by their names.
func setFeatures(name string, off, on []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	// How many features there are: command, reserved, mask of sets, its answer.
	size := words(ethtoolGetStringsLen, 0, 1<<ethtoolFeatureNames, 0, 0)
	if err := ethtool(fd, name, size); err != nil {
		return fmt.Errorf("number of features: %w", err)
	}
	n := int(binary.NativeEndian.Uint32(size[16:]))
	names := append(words(ethtoolGetStrings, ethtoolFeatureNames, uint32(n)), make([]byte, n*ethtoolNameLen)...)
	if err := ethtool(fd, name, names); err != nil {
		return fmt.Errorf("names of features: %w", err)
	}
	blocks := (n + 31) / 32
	set := append(words(ethtoolSetFeatures, uint32(blocks)), make([]byte, blocks*8)...) // of each block the valid bits, and the values
	note := func(feature string, value uint32) error {
		for i := range n {
			s, _, _ := bytes.Cut(names[12+i*ethtoolNameLen:][:ethtoolNameLen], []byte{0})
			if string(s) != feature {
				continue
			}
			block := set[8+i/32*8:]
			binary.NativeEndian.PutUint32(block, binary.NativeEndian.Uint32(block)|1<<(i%32))
			binary.NativeEndian.PutUint32(block[4:], binary.NativeEndian.Uint32(block[4:])|value<<(i%32))
			return nil
		}
		return fmt.Errorf("no feature %s", feature)
	}
	for _, f := range off {
		if err := note(f, 0); err != nil {
			return err
		}
	}
	for _, f := range on {
		if err := note(f, 1); err != nil {
			return err
		}
	}
	return ethtool(fd, name, set)
}

func words(w ...uint32) []byte {
	var b []byte
	for _, x := range w {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

// ethtool is one command about an interface; the answer is in b.
func ethtool(fd int, name string, b []byte) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	ifr.data = unsafe.Pointer(&b[0])
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return fmt.Errorf("ethtool: %w", errno)
	}
	return nil
}
