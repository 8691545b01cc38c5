package statusd

import (
	"fmt"
	"strings"
)

// Reloaded is what a reload did.
type Reloaded struct {
	Changes  []string `json:"changes,omitempty"`  // in force now
	Restart  []string `json:"restart,omitempty"`  // in force after a restart only
	Warnings []string `json:"warnings,omitempty"` // what the file asks for and does not get
}

// String says it in lines.
func (r Reloaded) String() string {
	var b strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "%s (warning)\n", w)
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "changed: %s\n", c)
	}
	for _, c := range r.Restart {
		fmt.Fprintf(&b, "needs a restart: %s\n", c)
	}
	if len(r.Changes)+len(r.Restart) == 0 {
		b.WriteString("nothing changed\n")
	}
	return b.String()
}
