package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// queue is one queue of a device.
type queue struct {
	of     *Interface
	dev    wgtun.Device
	virtio virtioIO
}

// open makes a queue of a descriptor of the device, and returns the device's name.
func (q *queue) open(fd int) (name string, err error) {
	// The monitored kind would poll the device once a second, and ask for its MTU
	// in whatever namespace the calling thread is.
	if q.dev, name, err = wgtun.CreateUnmonitoredTUNFromFD(fd); err != nil {
		return "", err
	}
	if err = q.virtio.open(q.dev.File()); err != nil {
		_ = q.dev.Close()
	}
	return name, err
}

var _ Device = (*queue)(nil)

// Queues returns the queues of the device, of which the Interface itself is the
// first. The host spreads flows over them. Each may be read and written by
// goroutines of its own, and must be read, since the host goes on sending to it.
// To close a queue closes the device.
func (i *Interface) Queues() []Device {
	all := make([]Device, 1, 1+len(i.more))
	all[0] = i
	for _, q := range i.more {
		all = append(all, q)
	}
	return all
}

func (i *Interface) closeQueues() error {
	errs := make([]error, 1, 1+len(i.more))
	errs[0] = i.dev.Close()
	for _, q := range i.more {
		errs = append(errs, q.dev.Close())
	}
	return errors.Join(errs...)
}

// Name returns the name of the network interface.
func (q *queue) Name() string { return q.of.Name() }

// MTU returns what Config.MTU or SetMTU asked for last.
func (q *queue) MTU() int { return q.of.MTU() }

// Close is Interface.Close.
func (q *queue) Close() error { return q.of.Close() }

// BatchSize returns how many packets one Read may return.
func (q *queue) BatchSize() int { return q.dev.BatchSize() }

// Read implements Device. A long TCP or UDP packet that the host hands over
// unsegmented comes as its segments.
func (q *queue) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	i := q.of
	if room := len(bufs[0]) - offset; room < i.MTU() {
		return 0, fmt.Errorf("tun: %w: buffers hold %d octets of packets, and the MTU is %d", ErrConfig, room, i.MTU())
	}
	for {
		n, err := q.dev.Read(bufs, sizes, offset)
		if err == nil {
			return n, nil
		}
		var errno syscall.Errno
		switch {
		case errors.Is(err, os.ErrClosed) || errors.As(err, &errno):
			return 0, fmt.Errorf("tun: read from %s: %w", i.name, err)
		case n > 0:
			i.readErrors.Add(1)
			return n, nil // more segments than buffers: the rest is lost
		}
		// One packet with a virtio header that the library cannot take.
		i.readErrors.Add(1)
	}
}

// Write implements Device. Segments of one TCP or UDP flow that follow each other
// reach the host as one long packet.
func (q *queue) Write(bufs [][]byte, offset int) (int, error) {
	if _, err := q.dev.Write(bufs, offset); err != nil {
		q.of.writeErrors.Add(1)
		return 0, fmt.Errorf("tun: write to %s: %w", q.of.name, err)
	}
	return len(bufs), nil
}
