// Who uses the console. The token stays in this tab: in its session storage, in no address and no cookie.

import { h, newId, problem } from "./dom.js";

const STORED = "dyad-admin-token";

export const storedToken = () => sessionStorage.getItem(STORED);
export const storeToken = (token) => sessionStorage.setItem(STORED, token);
export const forgetToken = () => sessionStorage.removeItem(STORED);

/** The form that asks for a token. `enter(token)` tries it and throws if it is not accepted. */
export function signInForm(enter, reason) {
  const id = newId("token");
  const slot = h("div", null, reason && problem({ message: reason }));
  const field = h("input", {
    id,
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": `${id}-hint`,
    "aria-required": "true",
  });
  const submit = async (event) => {
    event.preventDefault();
    slot.replaceChildren();
    const token = field.value.trim();
    try {
      // A header cannot carry anything else, and no token has it.
      if (!/^[\x21-\x7e]+$/.test(token)) throw new Error("Paste the whole token, and nothing else.");
      await enter(token);
    } catch (error) {
      slot.replaceChildren(problem(error));
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  };
  return h(
    "form",
    { class: "sign-in", novalidate: true, submit },
    h("h1", { tabindex: -1 }, "Sign in"),
    slot,
    h(
      "div",
      { class: "field" },
      h("label", { for: id }, "Admin token"),
      h(
        "p",
        { class: "hint", id: `${id}-hint` },
        h("code", null, "dyad-gateway admin token"),
        " prints one on the gateway's machine. It is kept in this tab until you sign out or close it.",
      ),
      field,
    ),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Sign in")),
  );
}
