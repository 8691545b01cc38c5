package web

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// browser starts a headless Chromium, and fails the test for each complaint of a page:
// an exception, an error on its console, something that its own policy forbids.
func browser(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil && os.Getenv("XTRKIT_REQUIRE_CHROMIUM") == "" {
		t.Skip("needs chromium (apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.WindowSize(1200, 1400),
		chromedp.Env("TMPDIR="+statusd.TempDir())) // it makes a socket there
	options = append(options, more...)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root with one
	}
	alloc, cancelAlloc := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancelAlloc)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	messages := chromedp.Console(ctx)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for m, err := range messages {
			if err != nil {
				return // the browser has ended
			}
			// A request that fails is told to whoever looks at the page.
			if m.IsException() || m.Type == chromedp.ConsoleError && m.Source != "network" {
				t.Errorf("the page complains: %s", m)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
	})
	return ctx
}

// run does one thing in the browser.
func run[T any](ctx context.Context, t *testing.T, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	require.NoError(t, err)
	return v
}

// wait waits until an expression is true in the page.
func wait(ctx context.Context, t *testing.T, expression string) {
	t.Helper()
	run(ctx, t, chromedp.Poll[chromedp.Void](expression))
}

// shown is the text that a selector's first element shows, with single spaces.
func shown(ctx context.Context, t *testing.T, selector chromedp.CSS) string {
	t.Helper()
	return strings.Join(strings.Fields(run(ctx, t, chromedp.Text(selector))), " ")
}

func TestPage(t *testing.T) {
	ctx := browser(t)
	var looks atomic.Int64
	source := make(events, 1)
	base, _ := serve(t, Config{Events: source, Snapshot: func(context.Context) (statusd.Status, error) {
		st := example()
		n := looks.Add(1)
		if n > 1 {
			st.Time = st.Time.Add(2e9)
			st.Node.Traffic.Encapsulated.Octets += 1e6
		}
		return st, nil
	}})
	source <- statusd.Event{Seq: 1, Time: started, Text: `<b>registered</b> 192.0.2.1/32`}

	run(ctx, t, chromedp.Navigate(base))
	run(ctx, t, chromedp.WaitVisible(chromedp.CSS("#mapcache tbody tr:nth-child(2)")))
	run(ctx, t, chromedp.WaitVisible(chromedp.CSS("#events li")))
	// A second look, for rates and a line of round-trip times.
	wait(ctx, t, `document.querySelector("#figures b").textContent === "4.0 Mbit/s"`)
	for selector, want := range map[chromedp.CSS]string{
		"#program":                "lispmn",
		"#uptime":                 "up 01:00:02",
		"#health":                 "running",
		"#interfaces tbody tr":    "198.51.100.7 #3 up 1/100 behind NAT 192.0.2.77:6000",
		"#registrations tbody tr": "203.0.113.1 192.0.2.1/32 registered 01:00:02 12.0 ms",
		"#paths tbody tr":         "198.51.100.7 203.0.113.20 up 12.1 ms",
		"#mapcache tbody tr":      "192.0.2.2/32 203.0.113.20 up 1/100 4 packets, 400 B 1.1 kpackets, 79.9 kB map-reply",
		"#mapcache tbody tr + tr": "natively-forward",
		"#drops tbody tr":         "hold-expired 1",
		"#events li":              "<b>registered</b>", // what comes from the network is text, never markup
	} {
		assert.Contains(t, shown(ctx, t, selector), want, selector)
	}
	line := run(ctx, t, chromedp.AttributeValue(chromedp.CSS("#paths svg path"), "d"))
	assert.Regexp(t, `^M118 1\.00h0\.5L119 1\.00`, line.Value, "two looks, equal times")
	sites := run(ctx, t, chromedp.Evaluate[int](`document.querySelectorAll("#mapserver:not([hidden])").length`))
	assert.Zero(t, sites, "a mobile node has no sites")
	shoot(ctx, t, "lispmn.png")

	run(ctx, t, chromedp.SendKeys(chromedp.CSS("#filter"), "192.0.2.128"))
	wait(ctx, t, `document.querySelectorAll("#mapcache tbody tr").length === 1`)
	run(ctx, t, chromedp.SendKeys(chromedp.CSS("#filter"), "9"))
	wait(ctx, t, `document.querySelector("#mapcache td").textContent === "no entry matches"`)
}

func TestMapServerPage(t *testing.T) {
	ctx := browser(t)
	var broken atomic.Bool
	base, _ := serve(t, Config{Events: make(events), Snapshot: func(context.Context) (statusd.Status, error) {
		if broken.Load() {
			return statusd.Status{}, context.DeadlineExceeded
		}
		return statusd.Status{
			Program: "lispms", Started: started, Time: started,
			MapServer: &statusd.MapServer{
				Sites:         []statusd.Site{{Name: "alpha", Prefixes: []string{"192.0.2.0/24"}}},
				Registrations: []statusd.SiteEntry{{Site: "alpha", Prefix: example().Node.EIDs[0], IID: 7, Expires: started.Add(180e9)}},
				Counters:      map[string]uint64{"map-registers": 3}, Refused: map[string]uint64{"key": 1},
			},
			RTR: &statusd.RTR{Relays: []statusd.Relay{{
				Prefix: example().Node.EIDs[0], Local: netip.MustParseAddr("192.168.1.2"), Global: netip.MustParseAddrPort("192.0.2.77:6000"),
				MapServer: netip.MustParseAddr("203.0.113.1"), Verified: started, Expires: started.Add(60e9),
			}}},
		}, nil
	}})
	run(ctx, t, chromedp.Navigate(base))
	run(ctx, t, chromedp.WaitVisible(chromedp.CSS("#sites tbody tr")))
	assert.Contains(t, shown(ctx, t, "#sites tbody"), "alpha 192.0.2.0/24 1")
	assert.Contains(t, shown(ctx, t, "#registered tbody"), "[7] 192.0.2.1/32 alpha")
	assert.Contains(t, shown(ctx, t, "#registered tbody"), "00:03:00")
	assert.Contains(t, shown(ctx, t, "#messages tbody"), "map-registers 3 refused: key 1")
	assert.Equal(t, "192.0.2.1/32 192.168.1.2 192.0.2.77:6000 203.0.113.1 00:00:00 00:01:00", shown(ctx, t, "#relays tbody"))
	shoot(ctx, t, "lispms.png")

	broken.Store(true)
	wait(ctx, t, `document.getElementById("health").textContent === "context deadline exceeded"`)
}

// TestLooks: on a desk and on a telephone, by day and by night, nothing is cut off or
// too pale to be read.
func TestLooks(t *testing.T) {
	for name, scheme := range map[string]string{"light": "1", "dark": "0"} {
		t.Run(name, func(t *testing.T) {
			ctx := browser(t, chromedp.Flag("blink-settings", "preferredColorScheme="+scheme))
			source := make(events, 1)
			base, _ := serve(t, Config{Events: source, Snapshot: func(context.Context) (statusd.Status, error) {
				st := example()
				st.Node.MapCache[0].RLOCs = append(st.Node.MapCache[0].RLOCs, statusd.RLOC{
					Addr: netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678"), Priority: 255, Weight: 100, State: "down",
				})
				return st, nil
			}})
			source <- statusd.Event{Seq: 1, Time: started, Text: "map-reply for 2001:db8:1234:5678:9abc:def0:1234:5678/128 from 203.0.113.20:4342"}
			run(ctx, t, chromedp.Navigate(base))
			run(ctx, t, chromedp.WaitVisible(chromedp.CSS("#events li")))
			dark := run(ctx, t, chromedp.Evaluate[bool](`matchMedia("(prefers-color-scheme: dark)").matches`))
			require.Equal(t, name == "dark", dark)
			for _, width := range []int64{1200, 400} {
				run(ctx, t, chromedp.EmulateViewport(width, 1800))
				over := run(ctx, t, chromedp.Evaluate[int](`document.documentElement.scrollWidth - innerWidth`))
				assert.LessOrEqual(t, over, 0, "%d pixels wide: the page is not to be moved sideways", width)
				shoot(ctx, t, fmt.Sprintf("%s-%d.png", name, width))
			}
			// WCAG 2.2, 1.4.3: 4.5 to 1.
			pale := run(ctx, t, chromedp.Evaluate[[]string](contrast))
			assert.Empty(t, pale)
		})
	}
}

// contrast lists the texts whose colour is too near to the one behind it.
const contrast = `(() => {
	const numbers = c => c.match(/[\d.]+/g).map(Number);
	const light = c => {
		const [r, g, b] = numbers(c).slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = getComputedStyle(e).backgroundColor, n = numbers(c);
			if (n.length < 4 || n[3] === 1) return c;
		}
		return "rgb(255, 255, 255)";
	};
	const pale = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
		const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < 4.5) pale.push(e.tagName + " " + e.textContent.trim().slice(0, 30) + " " + ratio.toFixed(1));
	}
	return pale;
})()`

// shoot keeps a picture of the page (go test -artifacts) and sees that something is on it.
func shoot(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	b := run(ctx, t, chromedp.CaptureScreenshot())
	picture, err := png.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	colours := make(map[any]bool)
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			colours[picture.At(x, y)] = true
		}
	}
	assert.Greater(t, len(colours), 10, "not blank")
	require.NoError(t, os.WriteFile(filepath.Join(t.ArtifactDir(), name), b, 0o644))
}
