package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// measure is one measurement of a contender.
type measure struct {
	name    string
	columns []string
	run     func(*contender, *options) ([]float64, error)
}

var measures = []measure{
	{"tcp1", []string{"tcp1", "cpu"}, func(c *contender, o *options) ([]float64, error) {
		before, err := c.cpu()
		if err != nil {
			return nil, err
		}
		r, err := tcp(c, 1, o.duration())
		if err != nil {
			return nil, err
		}
		after, err := c.cpu()
		return []float64{r.rate * 8, (after - before).Seconds() / (float64(r.octets) / 1e9)}, err
	}},
	{"tcp4", []string{"tcp4"}, func(c *contender, o *options) ([]float64, error) {
		r, err := tcp(c, 4, o.duration())
		return []float64{r.rate * 8}, err
	}},
	{"udp64", []string{"udp64", "udp64max"}, func(c *contender, o *options) ([]float64, error) { return search(c, 64, false, o) }},
	{"udpmany", []string{"udpmany", "udpmanymax"}, func(c *contender, o *options) ([]float64, error) { return search(c, 64, true, o) }},
	{"udp1400", []string{"udp1400", "udp1400max"}, func(c *contender, o *options) ([]float64, error) { return search(c, 1400, false, o) }},
	{"ping", []string{"rtt50", "rtt99"}, func(c *contender, o *options) ([]float64, error) {
		rtts, err := ping(c, o.pings)
		if err != nil {
			return nil, err
		}
		slices.Sort(rtts)
		return []float64{rtts[len(rtts)/2].Seconds(), rtts[len(rtts)*99/100].Seconds()}, nil
	}},
}

func measureNames() []string {
	names := make([]string, len(measures))
	for i, m := range measures {
		names[i] = m.name
	}
	return names
}

func (o *options) duration() time.Duration { return time.Duration(o.seconds * float64(time.Second)) }

// show writes the values out.
func (m *measure) show(values []float64) string {
	s := make([]string, len(m.columns))
	for i, key := range m.columns {
		c := columnOf(key)
		s[i] = fmt.Sprintf(c.format+" %s", values[i]*c.scale, c.title)
	}
	return strings.Join(s, ", ")
}

// maxLoss is the loss that a rate may have.
const maxLoss = 0.001

// searchSteps halve the range that the rate is in.
const searchSteps = 6

// search returns the highest rate of packets a second that was found with a loss
// below maxLoss, and how many arrive when the sender does all it can.
func search(c *contender, size int, many bool, o *options) ([]float64, error) {
	u, err := newUDPTest(c, size, many)
	if err != nil {
		return nil, err
	}
	defer u.close()
	for range 2 { // also warms up: neighbours, handshakes
		if err := u.awaitOne(); err != nil {
			return nil, err
		}
	}
	step := o.duration() / 4
	all, err := u.trial(0, step)
	if err != nil {
		return nil, err
	}
	most := all.arrivalRate()
	low, high := 0.0, all.sendRate()
	if all.loss() < maxLoss {
		return []float64{high, most}, nil
	}
	rate := min(most, high)
	for range searchSteps {
		var t trial
		for range 2 { // one hiccup of the machine is no loss
			if t, err = u.trial(rate, step); err != nil {
				return nil, err
			}
			if t.loss() < maxLoss {
				break
			}
		}
		if t.loss() < maxLoss {
			low = max(low, t.sendRate())
		} else {
			high = rate
		}
		if low >= high {
			break
		}
		rate = (low + high) / 2
	}
	return []float64{low, most}, nil
}
