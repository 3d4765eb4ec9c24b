// The page is whole without this: it adds the exact times, shows what others write at once, and a
// restart while it happens.

function tellTime(when) {
  when.title = new Date(Number(when.dataset.at)).toLocaleString();
}
document.querySelectorAll("[data-at]").forEach(tellTime);

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// As in entry.html. Ids grow smaller with time, and the newest entry stands first.
function show({ id, name, text, at }) {
  if (document.getElementById(id)) return;
  const list = document.querySelector("ol");
  const older = [...list.children].find((entry) => entry.id > id);
  const shown = list.children.length;
  const most = Number(list.dataset.most);
  if (!older && shown >= most) return;
  const when = element("span", { className: "when" }, "just now");
  when.dataset.at = at;
  tellTime(when);
  const who = element("p", { className: "who" }, element("bdi", {}, name), " ", when);
  list.insertBefore(element("li", { id }, who, element("p", { className: "text", dir: "auto" }, text)), older ?? null);
  if (shown >= most) list.lastElementChild.remove();
}

// Over HTTP/1.1 the stream outlives restarts; where it ends, the browser opens it anew by itself, unless
// it was refused, which a browser takes for good.
function listen() {
  const events = new EventSource("/live");
  events.onmessage = (event) => show(JSON.parse(event.data));
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}
listen();

async function refresh() {
  if (document.hidden) return;
  try {
    const [worker, visits] = await Promise.all(
      ["/whoami", "/api/visits"].map(async (path) => {
        const response = await fetch(path);
        return response.ok ? response.json() : {};
      }),
    );
    for (const [id, value] of Object.entries({ ...worker, ...visits })) {
      const shown = document.getElementById(id);
      if (shown?.closest(".facts")) shown.textContent = value;
    }
  } catch {
    // Nobody answers: what is shown stays, and the next round may be luckier.
  }
}
setInterval(refresh, 2000);
