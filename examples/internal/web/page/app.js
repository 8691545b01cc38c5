"use strict";

const interval = 2000;     // milliseconds between two looks
const sparkPoints = 120;   // so the sparkline shows four minutes
const maxEvents = 200;
const maxRows = 500;       // of a table; the filter finds the others

const $ = (id) => document.getElementById(id);

function element(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

// fill replaces the rows of a table. A cell is text or an element.
function fill(id, rows, none) {
  const body = $(id).tBodies[0];
  const shown = rows.slice(0, maxRows).map((cells) => {
    const tr = element("tr");
    for (const c of cells) {
      const td = element("td");
      td.append(c instanceof Node ? c : String(c));
      tr.append(td);
    }
    return tr;
  });
  const note = rows.length > maxRows ? `and ${rows.length - maxRows} more` : rows.length ? "" : none;
  if (note) {
    const tr = element("tr"), td = element("td", note, "none");
    td.colSpan = 9;
    tr.append(td);
    shown.push(tr);
  }
  body.replaceChildren(...shown);
}

function state(text) {
  const kind = { up: "good", registered: "good", down: "bad", unanswered: "bad" }[text] || "mid";
  return element("span", text, "state " + kind);
}

function span(seconds) {
  if (!isFinite(seconds)) return "";
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const days = Math.floor(s / 86400);
  return (days ? days + "d " : "") + two(Math.floor(s / 3600) % 24) + ":" + two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
}

const since = (now, then) => then ? span((now - new Date(then)) / 1000) : "never";
const until = (now, then) => then ? span((new Date(then) - now) / 1000) : "never";
const milliseconds = (ns) => ns ? (ns / 1e6).toFixed(1) + " ms" : "";

function amount(n, unit) {
  const steps = ["", "k", "M", "G", "T"];
  let i = 0;
  while (n >= 1000 && i < steps.length - 1) { n /= 1000; i++; }
  return (i ? n.toFixed(1) : Math.round(n)) + " " + steps[i] + unit;
}

// Round-trip times by path, newest last; null where a path was down.
const history = new Map();

function remember(paths) {
  const seen = new Set();
  for (const p of paths) {
    const key = p.local + " " + p.remote;
    seen.add(key);
    const h = history.get(key) || [];
    h.push(p.state === "up" && p.rttNanoseconds ? p.rttNanoseconds / 1e6 : null);
    if (h.length > sparkPoints) h.shift();
    history.set(key, h);
  }
  for (const key of history.keys()) if (!seen.has(key)) history.delete(key);
}

function spark(points) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${sparkPoints} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  const top = Math.max(...points.filter((p) => p !== null), 0);
  let d = "", pen = "M";
  points.forEach((p, i) => {
    if (p === null) { pen = "M"; return; }
    const x = sparkPoints - points.length + i;
    const y = 19 - 18 * (top ? p / top : 0);
    d += pen + x + " " + y.toFixed(2);
    // A single point is drawn as a line of length 1.
    if (pen === "M") d += "h0.5";
    pen = "L";
  });
  const path = document.createElementNS(ns, "path");
  path.setAttribute("d", d);
  svg.append(path);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", top ? `up to ${top.toFixed(1)} ms` : "no round-trip times");
  return svg;
}

let before; // the last look, for rates

function figures(st) {
  const t = st.node.traffic;
  const seconds = before ? (new Date(st.time) - new Date(before.time)) / 1000 : 0;
  const rate = (part, what) => seconds > 0
    ? Math.max(0, t[part][what] - before.node.traffic[part][what]) / seconds : 0;
  const figure = (text, label) => {
    const d = element("div");
    d.append(element("b", text), element("span", label));
    return d;
  };
  $("figures").replaceChildren(
    figure(amount(8 * rate("encapsulated", "octets"), "bit/s"), "to LISP sites, " + amount(rate("encapsulated", "packets"), "packets/s")),
    figure(amount(8 * rate("decapsulated", "octets"), "bit/s"), "from LISP sites, " + amount(rate("decapsulated", "packets"), "packets/s")),
    figure(amount(8 * rate("native", "octets"), "bit/s"), "natively, " + amount(rate("native", "packets"), "packets/s")),
    figure(st.node.mapCache ? st.node.mapCache.length : 0, "map-cache entries"),
    figure(t.heldNow, "packets wait for a mapping"),
    figure((st.node.eids || []).join(", "), "EIDs on " + st.node.device + ", MTU " + st.node.mtu),
  );
}

// stacked puts lines below each other in one cell.
function stacked(lines) {
  const d = element("div");
  for (const l of lines) {
    const row = element("div");
    row.append(l instanceof Node ? l : String(l));
    d.append(row);
  }
  return d;
}

const name = (e) => (e.iid ? `[${e.iid}] ` : "") + e.prefix;

// data is what was exchanged with the EIDs of an entry.
const data = (c) => c ? amount(c.packets, "packets") + ", " + amount(c.octets, "B") : "";

function locator(r) {
  const s = element("span");
  s.append(r.addr + (r.port && r.port !== 4341 ? ":" + r.port : "") + " ", state(r.state));
  return s;
}

function showNode(st) {
  const n = st.node, now = new Date(st.time);
  $("node").hidden = false;
  figures(st);
  const nat = new Map((n.nat || []).map((b) => [b.local, b.text]));
  const names = new Map((n.interfaces || []).map((i) => [i.index, i.name]));
  fill("interfaces", (n.locals || []).map((l) => [l.addr, names.get(l.ifIndex) || "#" + l.ifIndex, state(l.up ? "up" : "down"),
    l.priority + "/" + l.weight, nat.get(l.addr) || ""]), "no interface can be used");
  fill("registrations", (n.registrations || []).map((r) => [r.mapServer, stacked(r.eids || []),
    state(r.lastError ? r.state + ": " + r.lastError : r.state), since(now, r.since), milliseconds(r.rttNanoseconds)]), "no Map-Server");
  remember(n.paths || []);
  fill("paths", (n.paths || []).map((p) => [p.local, p.remote, state(p.state), milliseconds(p.rttNanoseconds),
    spark(history.get(p.local + " " + p.remote)), p.answered + " of " + p.sent]), "nothing is probed");
  const wanted = $("filter").value.trim();
  const entries = (n.mapCache || []).filter((e) => !wanted || name(e).includes(wanted) ||
    (e.rlocs || []).some((r) => r.addr.includes(wanted)));
  fill("mapcache", entries.map((e) => [name(e), e.rlocs ? stacked(e.rlocs.map(locator)) : e.action || "negative",
    e.rlocs ? stacked(e.rlocs.map((r) => r.priority + "/" + r.weight)) : "", data(e.in), data(e.out), e.origin, since(now, e.created), until(now, e.expires)]),
  wanted ? "no entry matches" : "empty");
  fill("drops", Object.entries(n.traffic.drops || {}).sort((a, b) => b[1] - a[1]), "none");
}

function showRTR(st) {
  const r = st.rtr, now = new Date(st.time);
  $("rtr").hidden = false;
  fill("relays", (r.relays || []).map((x) => [name(x), x.local, x.global, x.mapServer, since(now, x.verified), until(now, x.expires)]),
    "nobody behind a NAT has registered");
}

function showMapServer(st) {
  const m = st.mapServer, now = new Date(st.time);
  $("mapserver").hidden = false;
  const of = (site) => (m.registrations || []).filter((r) => r.site === site).length;
  fill("sites", (m.sites || []).map((s) => [s.name, stacked(s.prefixes || []), of(s.name)]), "no site");
  fill("registered", (m.registrations || []).map((r) => [name(r), r.site, stacked((r.rlocs || []).map((l) => l.addr)),
    r.from || "", until(now, r.expires)]), "nobody has registered");
  fill("messages", Object.entries(m.counters || {}).concat(Object.entries(m.refused || {}).map(([k, v]) => ["refused: " + k, v])), "none");
}

function health(ok, text) {
  $("health").textContent = text;
  $("health").className = "state " + (ok ? "good" : "bad");
}

async function look() {
  try {
    const r = await fetch("status", { cache: "no-store" });
    if (!r.ok) throw new Error((await r.text()).trim());
    const st = await r.json();
    document.title = st.program + " status";
    $("program").textContent = st.program;
    $("version").textContent = st.version;
    $("uptime").textContent = "up " + since(new Date(st.time), st.started);
    if (st.node) showNode(st);
    if (st.mapServer) showMapServer(st);
    if (st.rtr) showRTR(st);
    before = st;
    health(true, "running");
  } catch (err) {
    health(false, err instanceof TypeError ? "not reachable" : err.message);
  }
  setTimeout(look, interval);
}

function listen() {
  const events = new EventSource("events");
  events.onmessage = (m) => {
    const e = JSON.parse(m.data);
    const li = element("li");
    const time = element("time", new Date(e.time).toLocaleTimeString());
    time.dateTime = e.time;
    li.append(time, e.text);
    $("events").prepend(li);
    while ($("events").children.length > maxEvents) $("events").lastChild.remove();
  };
}

$("filter").addEventListener("input", () => { if (before && before.node) showNode(before); });
listen();
look();
