// The page is whole without this: it adds the exact times, and shows a restart while it happens.

for (const when of document.querySelectorAll("[data-at]")) {
  when.title = new Date(Number(when.dataset.at)).toLocaleString();
}

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
