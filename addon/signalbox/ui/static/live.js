// Keeps a page up to date: asks for it again, and puts the parts marked data-live in place of the old ones.
// Without this file the pages say the same, as of when they were loaded.
(() => {
  "use strict";
  const EVERY = 5000;
  const label = document.querySelector("[data-live-state]");
  let timer = 0;

  const say = (text, state) => {
    if (!label) return;
    label.textContent = text;
    label.parentElement.className = `pill ${state}`;
    label.parentElement.hidden = false;
  };

  // Where somebody selects or types, nothing is moved.
  const inUse = (part) => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    const active = document.activeElement;
    return selects || (part.contains(active) && active.matches("input, select"));
  };

  const replace = (part, page) => {
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    const scrolls = [...part.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const fresh = document.importNode(page, true);
    part.replaceWith(fresh);
    fresh.querySelectorAll("details").forEach((one, at) => { one.open = Boolean(open[at]); });
    fresh.querySelectorAll(".scroll").forEach((one, at) => { if (scrolls[at]) one.scrollTo(...scrolls[at]); });
    if (focused) {
      const href = focused.getAttribute("href");
      const again = focused.matches("summary") ? fresh.querySelector("summary")
        : [...fresh.querySelectorAll("a")].find((one) => one.getAttribute("href") === href);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const shape = (part) => part.outerHTML.replaceAll(' open=""', "");

  const refresh = async () => {
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh && shape(fresh) !== shape(part) && !inUse(part)) replace(part, fresh);
      }
      say("live", "good beating");
    } catch {
      say("no answer", "bad");
    }
    // A ledger that takes long to add up is asked less often.
    plan(Math.max(EVERY, 10 * (performance.now() - began)));
  };

  const plan = (wait) => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, wait);
  };

  if (document.querySelector("[data-live]")) {
    document.addEventListener("visibilitychange", () => plan(0));
    say("live", "good beating");
    plan(EVERY);
  }
})();
