package node

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
)

// DefaultStateFile is where a node keeps who it is if the configuration says
// nothing.
const DefaultStateFile = "/var/lib/lispmn/state.json"

// identity is what a node keeps over restarts.
type identity struct {
	// XTRID is made at the first start. By it a Map-Server knows that the node
	// that registers from a new address is the one that registered from the old.
	XTRID lisp.XTRID `json:"xtrID"`
	// Nonce is the largest that a Map-Register may carry, see
	// control.NonceReserved.
	Nonce lisp.Nonce `json:"nonce"`
	// MapVersions are the Map-Version Numbers of the EID-Prefixes, in a closed
	// network that uses them.
	MapVersions map[string]uint16 `json:"mapVersions,omitempty"`
}

// loadIdentity reads a state file, or makes a new identity if there is none. A
// file that is there and cannot be used is an error: to take another identity
// silently would look like another node to the Map-Servers.
func loadIdentity(path string) (identity, error) {
	var id identity
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, _ = rand.Read(id.XTRID[:]) // never fails
		return id, nil
	case err != nil:
		return id, fmt.Errorf("state file: %w", err)
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, fmt.Errorf("state file %s: %w (remove it to start as a new node)", path, err)
	}
	if id.XTRID == (lisp.XTRID{}) {
		return id, fmt.Errorf("state file %s has no xtrID (remove it to start as a new node)", path)
	}
	return id, nil
}

// save writes a state file, so that at any time either the old or the new one is
// there.
func (id identity) save(path string) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

// onEvent keeps what must outlive a restart, and shows the event to who looks. It
// runs within the Runner.
func (n *Node) onEvent(e control.Event) {
	if e, ok := e.(control.NonceReserved); ok {
		n.identity.Nonce = e.Nonce
		n.remember()
		return
	}
	n.status.Publish(statusd.Describe(e.When(), e.String(), e))
}

// remember writes down who we are. Nobody else may use the Engine.
func (n *Node) remember() {
	if vs := n.engine.MapVersions(); len(vs) > 0 {
		n.identity.MapVersions = make(map[string]uint16, len(vs))
		for k, v := range vs {
			n.identity.MapVersions[k.String()] = v
		}
	}
	n.keeper.keep(n.identity)
}

// keepIdentity begins to write down what remember is told.
func (n *Node) keepIdentity() {
	n.keeper = newKeeper(func(id identity) error { return id.save(n.stateFile()) }, func(err error) {
		n.log.Warn("after a restart, Map-Servers will take this for another node", "err", err)
	})
}

func (n *Node) stateFile() string {
	if n.cfg.Conf.StateFile != "" {
		return n.cfg.Conf.StateFile
	}
	return DefaultStateFile
}
