// The page is served by the daemon, so its API is of the same origin; texts go into the page as texts.
fetch("/v1/sessions").then((answer) => answer.json()).then((sessions) => {
  for (const one of sessions) {
    const item = document.createElement("li");
    item.textContent = `${one.session}: ${one.summary}`;
    document.getElementById("sessions").append(item);
  }
});
