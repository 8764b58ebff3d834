// Questions and answers that stand in front of the page. The browser's own dialog keeps the focus inside, closes at
// Escape, and gives the focus back.

import { button, h, newId, problem } from "./dom.js";

/** Shows `content` under a title until it is closed. Answers `close`. */
export function openDialog(title, content, { onClose, keepAtEscape = false } = {}) {
  const id = newId("dialog");
  const dialog = h("dialog", { "aria-labelledby": id }, h("h2", { id, tabindex: -1 }, title), content);
  if (keepAtEscape) {
    // The browser closes at a second Escape whatever happens to the first, but not where the key itself goes nowhere.
    dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.preventDefault());
    dialog.addEventListener("cancel", (event) => event.preventDefault());
  }
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return () => dialog.close();
}

/** Asks before something is done. `act` does it; what it throws is shown in the dialog. */
export function confirmDialog({ title, text, action, act, dangerous = false }) {
  const slot = h("div");
  const finish = async () => {
    await act();
    close();
  };
  const confirm = button(action, finish, { slot, class: dangerous ? "dangerous" : "primary" });
  const cancel = h(
    "button",
    { type: "button", class: "quiet", autofocus: true, click: () => close() },
    "Cancel",
  );
  const close = openDialog(title, [
    h("p", null, text),
    slot,
    h("div", { class: "buttons" }, cancel, confirm),
  ]);
}

/** Shows a secret for the one time that there is. */
export function secretDialog(title, secret, explanation) {
  return new Promise((resolve) => {
    const field = h("input", {
      type: "text",
      readonly: true,
      value: secret,
      class: "code",
      id: newId("secret"),
      focus: () => field.select(),
    });
    const said = h("p", { role: "status" });
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(secret);
        said.replaceChildren("Copied.");
      } catch {
        // Over plain HTTP from another machine the browser lets no page copy.
        field.select();
        said.replaceChildren("Your browser does not let this page copy. The key is selected: press Ctrl+C.");
      }
    };
    const close = openDialog(
      title,
      [
        h("p", null, explanation),
        h("div", { class: "field" }, h("label", { for: field.id }, "Secret"), field),
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", class: "primary", autofocus: true, click: copy }, "Copy"),
          h("button", { type: "button", class: "quiet", click: () => close() }, "Done, I have kept it"),
        ),
        said,
      ],
      { onClose: resolve, keepAtEscape: true },
    );
  });
}

/** Somebody else changed it: an error's place, with the offer to see the new state. */
export function changedElsewhere(error, load) {
  if (error.status !== 412) return error;
  const box = problem({
    message: "Somebody else has changed this since you opened it. Nothing of yours was saved.",
    requestId: error.requestId,
  });
  box.append(
    h("div", { class: "buttons" }, h("button", { type: "button", click: load }, "Load the new state")),
  );
  return Object.assign(error, { element: box });
}
