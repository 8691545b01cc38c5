package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// kernelName is the contender that the others are compared with.
const kernelName = "kernel"

// column is one value that a measurement gives.
type column struct {
	key    string
	title  string
	format string
	scale  float64 // from the unit of the value to that of the title
}

var columns = []column{
	{"tcp1", "TCP 1 flow Gbit/s", "%.2f", 1e-9},
	{"tcp4", "TCP 4 flows Gbit/s", "%.2f", 1e-9},
	{"cpu", "CPU s/GB", "%.2f", 1},
	{"udp64", "64-octet kpps at <0.1% loss", "%.0f", 1e-3},
	{"udp64max", "64-octet kpps, sender unbounded", "%.0f", 1e-3},
	{"udpmany", "64-octet kpps to 16384 EIDs at <0.1% loss", "%.0f", 1e-3},
	{"udpmanymax", "64-octet kpps to 16384 EIDs, sender unbounded", "%.0f", 1e-3},
	{"udp1400", "1400-octet kpps at <0.1% loss", "%.0f", 1e-3},
	{"udp1400max", "1400-octet kpps, sender unbounded", "%.0f", 1e-3},
	{"rtt50", "ping p50 µs", "%.0f", 1e6},
	{"rtt99", "ping p99 µs", "%.0f", 1e6},
}

func columnOf(key string) *column {
	i := slices.IndexFunc(columns, func(c column) bool { return c.key == key })
	return &columns[i]
}

// report is what was measured.
type report struct {
	Load       string                          `json:"load"`
	Rounds     int                             `json:"rounds"`
	Seconds    float64                         `json:"seconds"`
	Contenders []string                        `json:"contenders"`
	Skipped    []string                        `json:"skipped,omitempty"`
	Values     map[string]map[string][]float64 `json:"values"` // by contender and column, a value per round, in SI units
}

func newReport(o *options) *report {
	return &report{
		Rounds: o.rounds, Seconds: o.seconds, Contenders: o.contenders,
		Values: map[string]map[string][]float64{},
	}
}

// add takes the values of a measurement, one for each of its columns.
func (r *report) add(contender string, m measure, values []float64) {
	if r.Values[contender] == nil {
		r.Values[contender] = map[string][]float64{}
	}
	for i, v := range values {
		key := m.columns[i]
		r.Values[contender][key] = append(r.Values[contender][key], v)
	}
}

// print writes the tables.
func (r *report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	var have []column
	for _, c := range columns {
		if slices.ContainsFunc(r.Contenders, func(name string) bool { return len(r.Values[name][c.key]) > 0 }) {
			have = append(have, c)
		}
	}
	titles := make([]string, len(have))
	for i, c := range have {
		titles[i] = c.title
	}
	r.table(tw, "medians\t"+strings.Join(titles, "\t"), have, func(name string, c column) string {
		return fmt.Sprintf(c.format, median(r.Values[name][c.key])*c.scale)
	})
	for _, base := range []string{kernelName, "wireguard"} {
		if len(r.Values[base]) == 0 {
			continue
		}
		fmt.Fprintln(tw)
		r.table(tw, "of "+base+"'s\t"+strings.Join(titles, "\t"), have, func(name string, c column) string {
			return fmt.Sprintf("%.2f", pairedRatio(r.Values[name][c.key], r.Values[base][c.key]))
		})
	}
	for _, s := range r.Skipped {
		fmt.Fprintln(tw, "\nleft out:", s)
	}
	return tw.Flush()
}

func (r *report) table(w io.Writer, title string, have []column, cell func(string, column) string) {
	fmt.Fprintln(w, title)
	for _, name := range r.Contenders {
		if r.Values[name] == nil {
			continue
		}
		cells := make([]string, 1, 1+len(have))
		cells[0] = name
		for _, c := range have {
			cells = append(cells, cell(name, c))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
}

// median returns the median, NaN of nothing.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	switch n := len(v); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// pairedRatio returns the median of the ratios of the rounds.
func pairedRatio(values, base []float64) float64 {
	ratios := make([]float64, min(len(values), len(base)))
	for i := range ratios {
		ratios[i] = values[i] / base[i]
	}
	return median(ratios)
}
