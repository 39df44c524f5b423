// Keys that work everywhere on the page, and the list of all of them.

import { $, h } from "./dom.js";
import { strings } from "./strings.js";

function help() {
  const dialog = $("help");
  dialog.replaceChildren(
    h("div", { className: "bar" }, h("h2", { id: "help-title" }, strings.help_title),
      h("button", { type: "button", onclick: () => dialog.close() }, strings.close)),
    ...strings.help.flatMap(([place, keys]) => [h("h3", {}, place),
      h("dl", { className: "keys" }, ...keys.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]))]));
  dialog.showModal();
}

export function startKeys() {
  $("keys").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "?") help();
    else if (event.key === "/") $("text").focus();
    else if (event.key === "u") $("file").click();
    else if (event.key === "o") $("sets-open").click();
    else if (event.key === "l" && !$("keep").hidden) $($("keep-name").value ? "keep-label" : "keep-name").focus();
    else if (event.key === "m") $("map-open").click();
    else return;
    event.preventDefault();
  });
}
