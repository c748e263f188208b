// The two things that may be asked for, each only after a word of confirmation.
import { el } from "./words.js";
import { ask } from "./store.js";

const TEXTS = {
  release: (target) => [`Release ${target}?`, "The controller lets it back into service; where the site has a verification, only if it passes that. Your user's name is recorded with what you write."],
  pause: (target) => [`Pause train ${target}?`, "Hosts to which nothing was done yet are given back; those under way are finished. Your user's name is recorded with what you write."],
  resume: (target) => [`Let train ${target} go on?`, "It takes hosts again, under the guarantee. Your user's name is recorded with what you write."],
};
const BUTTONS = { release: "Release", pause: "Pause", resume: "Go on" };

export function confirm(verb, target) {
  const dialog = document.getElementById("ask");
  const [title, text] = TEXTS[verb](target);
  const why = el("input", { type: "text", id: "ask-why", maxlength: "200", autocomplete: "off" });
  const said = el("p", { class: "note", role: "status" });
  const form = el("form", { method: "dialog" }, el("h1", { id: "ask-title" }, title), el("p", { class: "soft" }, text),
    el("label", { for: "ask-why" }, "Why"), why, said,
    el("div", { class: "bar" }, el("button", { class: "act", value: "no", type: "button", onclick: () => dialog.close() }, "Cancel"),
      el("button", { class: "act primary", value: "yes" }, BUTTONS[verb])));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await ask(verb, target, why.value);
    if (answer.ok) {
      document.getElementById("spoken").textContent = `Asked by ${answer.by}; the controller takes it up at its next tick.`;
      dialog.close();
    } else {
      said.textContent = answer.error;
      said.className = "note bad";
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
  why.focus();
}
