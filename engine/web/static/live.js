// Keeps an open page fresh: the server sends the regions that changed (server-sent events), this replaces them.
// Every page works without it; a page then shows the figures of the moment when it was loaded.
"use strict";
(() => {
  const age = document.getElementById("age");
  const line = document.getElementById("line");
  const missing = document.getElementById("missing");
  const address = document.body.dataset.live;

  // The age is counted from the server's two times and this browser's own steady clock: their clocks need not agree.
  let figuresAt = age ? Number(age.dataset.at) : 0;
  let serverNow = age ? Number(age.dataset.now) : 0;
  let heardAt = performance.now();

  function showAge() {
    if (!age) return;
    const seconds = Math.max(0, (serverNow - figuresAt + performance.now() - heardAt) / 1000);
    const when = new Date(figuresAt).toISOString().slice(0, 19).replace("T", " ");
    const old = seconds < 1.5 ? "now" : seconds < 120 ? `${Math.round(seconds)} s old` : `${Math.round(seconds / 60)} min old`;
    age.textContent = `figures of ${when} UTC, ${old}`;
    age.classList.toggle("stale", Boolean(address) && seconds > 20);
  }

  function say(state, text) {
    if (!line || line.dataset.state === state) return;
    line.dataset.state = state;
    line.textContent = text;
  }

  function showMissing(text) {
    if (!missing) return;
    missing.hidden = text === "";
    missing.replaceChildren(...text.split("\n").filter(Boolean).map((sentence) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = sentence;
      return paragraph;
    }));
  }

  // What a reader has opened, focused or scrolled inside a region stays so when the region is replaced.
  function replace(region, html) {
    const focused = region.contains(document.activeElement) ? document.activeElement : null;
    const mark = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.getAttribute("href") ? `a[href="${CSS.escape(focused.getAttribute("href"))}"]` : "");
    const opened = new Set([...region.querySelectorAll("details[id][open]")].map((one) => one.id));
    const scrolled = [...region.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    region.innerHTML = html;
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    region.querySelectorAll(".scroll").forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
    if (mark) region.querySelector(mark)?.focus({ preventScroll: true });
  }

  function listen() {
    const source = new EventSource(address);
    source.onopen = () => say("live", "live");
    source.onerror = () => say("lost", "connection lost: these figures are old; trying again");
    source.addEventListener("over", () => { source.close(); location.reload(); });
    source.onmessage = (event) => {
      const regions = JSON.parse(event.data);
      for (const [name, html] of Object.entries(regions)) {
        if (name === "@at") figuresAt = Number(html);
        else if (name === "@now") { serverNow = Number(html); heardAt = performance.now(); }
        else if (name === "@missing") showMissing(html);
        else {
          const region = document.querySelector(`[data-live="${CSS.escape(name)}"]:not(body)`);
          if (region && !document.getSelection()?.containsNode(region, true)) replace(region, html);
          else if (region && document.getSelection()?.isCollapsed) replace(region, html);
        }
      }
      say("live", "live");
      showAge();
    };
    addEventListener("pagehide", () => source.close());
  }

  if (age) { showAge(); setInterval(showAge, 1000); }
  if (address && "EventSource" in window) listen();
})();
