package multihome

import "fmt"

// Defaults of RoutingConfig.
const (
	DefaultPriority  = 32764 // two priorities, just before the main table's
	DefaultTableBase = 434100
)

// RoutingConfig makes a Routing. The zero value of each field but Protocol is
// its default.
type RoutingConfig struct {
	// Protocol marks what Routing adds (rtm_protocol); required, and what carries
	// it at these priorities or in these tables is taken for a leftover.
	Protocol uint8
	// Priority is the first of two rule priorities. Rules of the user should come
	// before: they stay in force then. Default DefaultPriority.
	Priority int
	// TableBase plus the index of an interface is the number of its routing table.
	// Default DefaultTableBase.
	TableBase int
	// Keep lets rules and routes outlive the process: Close leaves them, and
	// NewRouting takes over those that are there, until Set says what is needed.
	Keep bool
}

func (c RoutingConfig) withDefaults() (RoutingConfig, error) {
	if c.Priority == 0 {
		c.Priority = DefaultPriority
	}
	if c.TableBase == 0 {
		c.TableBase = DefaultTableBase
	}
	switch {
	case c.Protocol == 0:
		return c, fmt.Errorf("multihome: %w: routes need a protocol number", ErrConfig)
	case c.Priority < 1 || c.Priority > 32764:
		return c, fmt.Errorf("multihome: %w: rule priority %d is not between 1 and 32764", ErrConfig, c.Priority)
	case c.TableBase < 256:
		return c, fmt.Errorf("multihome: %w: tables from %d on are the system's", ErrConfig, c.TableBase)
	}
	return c, nil
}
